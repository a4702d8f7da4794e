// Package freeport finds a port for a server whose port has to be known before it
// listens: one of a cluster, one that is started again, a program of its own.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync"
	"syscall"
)

// Ports below 32768 are never given to outgoing connections, by Linux as by others, so
// that between the look here and the server's own listening only another server could
// take one. That can't be one of another process that asked here: a process listens on the
// first port of each block that it gives ports of, as long as it runs.
const first, end, block = 10000, 32768, 64

var (
	mu     sync.Mutex
	held   []net.Listener // on the first ports of our blocks
	begins []int          // of our blocks
	given  int            // ports, of all our blocks one after the other
)

// Port gives a TCP port on which nobody listens at 127.0.0.1. A process is given none a
// second time before there is no other: the one it was given may be without its server yet.
func Port() (int, error) {
	mu.Lock()
	defer mu.Unlock()
	for range end - first {
		if given == len(begins)*(block-1) && !claim() {
			if given = 0; len(begins) == 0 {
				break
			}
		}
		port := begins[given/(block-1)] + 1 + given%(block-1)
		given++
		if free(port) {
			return port, nil
		}
	}
	return 0, errors.New("no free port below 32768")
}

// claim makes a block ours that is nobody's.
func claim() bool {
	const blocks = (end - first) / block
	begin := rand.IntN(blocks)
	for i := range blocks {
		at := first + (begin+i)%blocks*block
		if l, err := listen(at); err == nil {
			held, begins = append(held, l), append(begins, at)
			return true
		}
	}
	return false
}

// free dials. To listen and close would not do: a program that this process is starting
// meanwhile has a copy of the listener until it has replaced itself.
func free(port int) bool {
	c, err := net.Dial("tcp", addr(port))
	if err == nil {
		_ = c.Close()
	}
	return errors.Is(err, syscall.ECONNREFUSED)
}

func listen(port int) (net.Listener, error) {
	return net.Listen("tcp", addr(port))
}

func addr(port int) string { return fmt.Sprint("127.0.0.1:", port) }
