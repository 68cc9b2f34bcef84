// Package sample holds measured values and their percentiles.
package sample

import "slices"

// Set keeps up to its capacity of values; what comes after that is counted, not kept.
type Set struct {
	values  []int64
	dropped int64
}

// Summary is a set in figures, in the unit of its values divided by the unit it was asked for.
type Summary struct {
	Count   int64   `json:"count"`
	Dropped int64   `json:"dropped"`
	P50     float64 `json:"p50"`
	P90     float64 `json:"p90"`
	P99     float64 `json:"p99"`
	Max     float64 `json:"max"`
}

// New makes a set that keeps at most capacity values.
func New(capacity int) *Set { return &Set{values: make([]int64, 0, capacity)} }

// Add keeps one value.
func (s *Set) Add(value int64) {
	if len(s.values) == cap(s.values) {
		s.dropped++
		return
	}
	s.values = append(s.values, value)
}

// Reset forgets everything.
func (s *Set) Reset() { s.values, s.dropped = s.values[:0], 0 }

// Summary sorts the values and reads the nearest-rank percentiles, divided by unit.
func (s *Set) Summary(unit float64) Summary {
	slices.Sort(s.values)
	return Summary{
		Count:   int64(len(s.values)),
		Dropped: s.dropped,
		P50:     float64(Percentile(s.values, 50)) / unit,
		P90:     float64(Percentile(s.values, 90)) / unit,
		P99:     float64(Percentile(s.values, 99)) / unit,
		Max:     float64(Percentile(s.values, 100)) / unit,
	}
}

// Percentile is the nearest-rank percentile of sorted values: the smallest value that at least
// percent of a hundred are not above. It is 0 for no values.
func Percentile(sorted []int64, percent int) int64 {
	if len(sorted) == 0 {
		return 0
	}
	rank := (len(sorted)*percent + 99) / 100
	return sorted[max(rank, 1)-1]
}
