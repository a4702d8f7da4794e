// Package freeport finds a port for a server whose port has to be known before it
// listens: one of a cluster, one that is started again, a program of its own.
package freeport

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
)

// Ports below 32768 are never given to outgoing connections, by Linux as by others, so
// that between the look here and the server's own listening only another server could
// take one.
const first, end = 10000, 32768

// Port gives a TCP port on which nobody listens at 127.0.0.1.
func Port() (int, error) {
	for range 1000 {
		port := first + rand.IntN(end-first)
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			continue
		}
		return port, l.Close()
	}
	return 0, errors.New("no free port below 32768")
}
