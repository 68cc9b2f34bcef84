//go:build linux

// Package poll is a single-threaded readiness loop over raw Linux system calls.
//
// The benchmark's client and upstream share one core and must cost less than the proxies that they
// measure. Goroutines per connection pay for scheduler hand-offs and futex wake-ups at every read;
// one thread that blocks in epoll_pwait and otherwise only reads and writes pays for neither.
// A program that uses this package keeps everything in its main goroutine and calls Exclusive first.
package poll

import (
	"fmt"
	"net/netip"
	"os"
	"runtime"
	"runtime/debug"
	"syscall"
	"time"
	"unsafe"
)

// Readiness flags of an event, as epoll(7) defines them.
const (
	In    = syscall.EPOLLIN | syscall.EPOLLRDHUP
	Out   = syscall.EPOLLOUT
	Hup   = syscall.EPOLLHUP | syscall.EPOLLERR | syscall.EPOLLRDHUP
	again = syscall.EAGAIN
)

// Exclusive binds the calling goroutine to its thread and switches the collector off: a goroutine
// that sits in a raw system call can never be stopped for a collection. Memory stays bounded because
// the programs allocate nothing per request.
func Exclusive() {
	runtime.GOMAXPROCS(1)
	runtime.LockOSThread()
	debug.SetGCPercent(-1)
}

// Now is the wall clock in nanoseconds: comparable between the processes of one machine.
func Now() int64 { return time.Now().UnixNano() }

// Poller is one epoll instance.
type Poller struct {
	fd     int
	events [512]syscall.EpollEvent
}

// New makes an epoll instance.
func New() (*Poller, error) {
	fd, err := syscall.EpollCreate1(syscall.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	return &Poller{fd: fd}, nil
}

// Add watches a descriptor, level-triggered.
func (p *Poller) Add(fd int, flags uint32) error {
	return p.control(syscall.EPOLL_CTL_ADD, fd, flags)
}

// Modify changes what is watched on a descriptor.
func (p *Poller) Modify(fd int, flags uint32) error {
	return p.control(syscall.EPOLL_CTL_MOD, fd, flags)
}

func (p *Poller) control(op, fd int, flags uint32) error {
	event := syscall.EpollEvent{Events: flags, Fd: int32(fd)}
	_, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_CTL, uintptr(p.fd), uintptr(op), uintptr(fd),
		uintptr(unsafe.Pointer(&event)), 0, 0)
	if errno != 0 {
		return fmt.Errorf("epoll_ctl: %w", errno)
	}
	return nil
}

// Wait blocks until something is ready or the timeout in milliseconds has passed (-1: for ever).
func (p *Poller) Wait(timeoutMs int) ([]syscall.EpollEvent, error) {
	n, _, errno := syscall.RawSyscall6(syscall.SYS_EPOLL_PWAIT, uintptr(p.fd),
		uintptr(unsafe.Pointer(&p.events[0])), uintptr(len(p.events)), uintptr(timeoutMs), 0, 0)
	if errno == syscall.EINTR {
		return nil, nil
	}
	if errno != 0 {
		return nil, fmt.Errorf("epoll_pwait: %w", errno)
	}
	return p.events[:n], nil
}

// Read reads what is there. blocked means that nothing is; n == 0 without it means the end (a reset
// counts as an end: either way the peer is gone).
func Read(fd int, buf []byte) (n int, blocked bool) {
	got, _, errno := syscall.RawSyscall(syscall.SYS_READ, uintptr(fd),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)))
	if errno == again || errno == syscall.EINTR {
		return 0, true
	}
	if errno != 0 {
		return 0, false
	}
	return int(got), false
}

// Write writes what the socket takes. gone means that the peer has closed.
func Write(fd int, buf []byte) (n int, gone bool) {
	if len(buf) == 0 {
		return 0, false
	}
	put, _, errno := syscall.RawSyscall6(syscall.SYS_SENDTO, uintptr(fd),
		uintptr(unsafe.Pointer(&buf[0])), uintptr(len(buf)), syscall.MSG_NOSIGNAL, 0, 0)
	if errno == again || errno == syscall.EINTR {
		return 0, false
	}
	if errno != 0 {
		return 0, true
	}
	return int(put), false
}

// Close closes a descriptor.
func Close(fd int) { _, _, _ = syscall.RawSyscall(syscall.SYS_CLOSE, uintptr(fd), 0, 0) }

// Listen opens a listening loopback socket; port 0 takes a free one. It returns the port.
func Listen(port int) (fd, bound int, err error) {
	fd, err = syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, 0, fmt.Errorf("socket: %w", err)
	}
	if err = syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1); err != nil {
		return 0, 0, fmt.Errorf("SO_REUSEADDR: %w", err)
	}
	if err = syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		return 0, 0, fmt.Errorf("bind 127.0.0.1:%d: %w", port, err)
	}
	if err = syscall.Listen(fd, 4096); err != nil {
		return 0, 0, fmt.Errorf("listen: %w", err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		return 0, 0, fmt.Errorf("getsockname: %w", err)
	}
	return fd, name.(*syscall.SockaddrInet4).Port, nil
}

// Accept takes one waiting connection, or returns ok == false.
func Accept(listener int) (fd int, ok bool) {
	fd, _, err := syscall.Accept4(listener, syscall.SOCK_NONBLOCK|syscall.SOCK_CLOEXEC)
	if err != nil {
		return 0, false
	}
	noDelay(fd)
	return fd, true
}

// Dial connects to a loopback address (anything else is refused: the benchmark loads no network).
func Dial(address netip.AddrPort) (int, error) {
	if !address.Addr().IsLoopback() || !address.Addr().Is4() {
		return 0, fmt.Errorf("address: want 127.x.x.x:port, got %s", address)
	}
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("socket: %w", err)
	}
	target := &syscall.SockaddrInet4{Port: int(address.Port()), Addr: address.Addr().As4()}
	if err = syscall.Connect(fd, target); err != nil {
		Close(fd)
		return 0, fmt.Errorf("connect %s: %w", address, err)
	}
	noDelay(fd)
	if err = syscall.SetNonblock(fd, true); err != nil {
		Close(fd)
		return 0, fmt.Errorf("O_NONBLOCK: %w", err)
	}
	return fd, nil
}

func noDelay(fd int) {
	_ = syscall.SetsockoptInt(fd, syscall.IPPROTO_TCP, syscall.TCP_NODELAY, 1)
}

// RaiseFileLimit lifts the soft limit of open files to the hard one.
func RaiseFileLimit() {
	var limit syscall.Rlimit
	if syscall.Getrlimit(syscall.RLIMIT_NOFILE, &limit) == nil {
		limit.Cur = limit.Max
		_ = syscall.Setrlimit(syscall.RLIMIT_NOFILE, &limit)
	}
}

// Fatal prints one sentence and ends the process.
func Fatal(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
