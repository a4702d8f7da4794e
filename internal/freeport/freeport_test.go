package freeport_test

import (
	"fmt"
	"net"
	"os/exec"
	"sync"
	"testing"

	"leadpipe/internal/freeport"
)

// Many that ask at once, and have not listened yet, are given ports of their own.
func TestNoPortIsGivenTwice(t *testing.T) {
	t.Parallel()
	const asked = 2000
	ports := make([]int, asked)
	var wg sync.WaitGroup
	for i := range ports {
		wg.Go(func() {
			var err error
			if ports[i], err = freeport.Port(); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	given := map[int]bool{}
	for _, p := range ports {
		if given[p] || p < 10000 || p >= 32768 {
			t.Fatalf("port %d is given twice, or is one of outgoing connections", p)
		}
		given[p] = true
	}
}

// A port can be listened on at once, also while programs are being started: a child has
// copies of our sockets until it runs its own program.
func TestPortIsFreeWhileProgramsAreStarted(t *testing.T) {
	t.Parallel()
	program, err := exec.LookPath("true")
	if err != nil {
		t.Skip(err)
	}
	done := make(chan struct{})
	var starting sync.WaitGroup
	for range 4 {
		starting.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				if err := exec.CommandContext(t.Context(), program).Run(); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	for range 300 {
		port, err := freeport.Port()
		if err != nil {
			t.Error(err)
			break
		}
		l, err := net.Listen("tcp", fmt.Sprint("127.0.0.1:", port))
		if err != nil {
			t.Error("listening on a port that was given as free: ", err)
			break
		}
		_ = l.Close()
	}
	close(done)
	starting.Wait()
}
