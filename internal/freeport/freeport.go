// Package freeport finds a port for a server whose port has to be known before it
// listens: one of a cluster, one that is started again, a program of its own.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"sync/atomic"
)

// Ports below 32768 are never given to outgoing connections, by Linux as by others, so
// that between the look here and the server's own listening only another server could
// take one.
const first, end = 10000, 32768

// next is where to look next. This process is given no port a second time before all the
// others: the one it was given may be without its server yet. Others begin elsewhere.
var next = func() *atomic.Uint32 {
	n := &atomic.Uint32{}
	n.Store(rand.Uint32N(end - first))
	return n
}()

// Port gives a TCP port on which nobody listens at 127.0.0.1.
func Port() (int, error) {
	for range end - first {
		port := first + int(next.Add(1)%(end-first))
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port below 32768")
}
