//go:build linux

package poll

import (
	"encoding/binary"
	"fmt"
	"syscall"
	"unsafe"
)

const clockMonotonic = 1

type itimerspec struct {
	interval, value syscall.Timespec
}

// Timer is a timerfd(2): its descriptor becomes readable when it fires.
type Timer struct {
	FD int
}

// NewTimer makes a timer that is not armed.
func NewTimer() (*Timer, error) {
	fd, _, errno := syscall.RawSyscall(syscall.SYS_TIMERFD_CREATE, clockMonotonic,
		syscall.O_NONBLOCK|syscall.O_CLOEXEC, 0)
	if errno != 0 {
		return nil, fmt.Errorf("timerfd_create: %w", errno)
	}
	return &Timer{FD: int(fd)}, nil
}

// Every fires each period nanoseconds.
func (t *Timer) Every(period int64) error { return t.set(period, period) }

// After fires once, after delay nanoseconds (at least one).
func (t *Timer) After(delay int64) error { return t.set(max(delay, 1), 0) }

func (t *Timer) set(value, interval int64) error {
	spec := itimerspec{
		interval: syscall.NsecToTimespec(interval),
		value:    syscall.NsecToTimespec(value),
	}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_TIMERFD_SETTIME, uintptr(t.FD), 0,
		uintptr(unsafe.Pointer(&spec)), 0, 0, 0)
	if errno != 0 {
		return fmt.Errorf("timerfd_settime: %w", errno)
	}
	return nil
}

// Expired reads how often the timer has fired since the last call.
func (t *Timer) Expired() uint64 {
	var buf [8]byte
	if n, _ := Read(t.FD, buf[:]); n != 8 {
		return 0
	}
	return binary.NativeEndian.Uint64(buf[:])
}
