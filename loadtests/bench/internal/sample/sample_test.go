package sample

import "testing"

func TestPercentileIsNearestRank(t *testing.T) {
	hundred := make([]int64, 100)
	for i := range hundred {
		hundred[i] = int64(i + 1)
	}
	for _, c := range []struct {
		sorted  []int64
		percent int
		want    int64
	}{
		{hundred, 50, 50}, {hundred, 99, 99}, {hundred, 100, 100}, {hundred, 0, 1},
		{[]int64{7}, 99, 7}, {[]int64{1, 2}, 50, 1}, {[]int64{1, 2, 3}, 50, 2}, {nil, 50, 0},
	} {
		if got := Percentile(c.sorted, c.percent); got != c.want {
			t.Errorf("Percentile(%d values, %d) = %d, want %d", len(c.sorted), c.percent, got, c.want)
		}
	}
}

func TestSetCountsWhatItCannotKeep(t *testing.T) {
	set := New(2)
	for _, value := range []int64{30, 10, 20} {
		set.Add(value)
	}
	got := set.Summary(10)
	if got.Count != 2 || got.Dropped != 1 || got.P50 != 1 || got.Max != 3 {
		t.Errorf("got %+v", got)
	}
}
