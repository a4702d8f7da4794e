package freeport_test

import (
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
