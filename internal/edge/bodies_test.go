package edge_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	"leadpipe/contracts"
)

// A body's memory is used again only once nobody reads it: not while a publish is under
// way, and not after one that failed, of which a try may still be.
func TestBodiesStayAsTheyCame(t *testing.T) {
	t.Parallel()
	var late sync.WaitGroup
	unchanged := func(m contracts.Message) {
		body := []byte(m.ID[len("stripe:"):])
		for range 5 {
			if n := bytes.Count(m.Data, body); n < 2 || bytes.Count(m.Data, []byte("evt_")) != n {
				t.Errorf("the body of %s has changed", m.ID)
				return
			}
			time.Sleep(time.Duration(rand.IntN(1000)) * time.Microsecond)
		}
	}
	r := start(t, publisher(func(_ context.Context, msgs []contracts.Message) error {
		if rand.IntN(3) == 0 {
			late.Go(func() { unchanged(msgs[0]) })
			return errors.New("no answer in time")
		}
		unchanged(msgs[0])
		return nil
	}))
	var wg sync.WaitGroup
	for c := range 16 {
		wg.Go(func() {
			for i := range 20 {
				id := fmt.Sprintf("evt_%02d%02d", c, i)
				q := stripeRequest(stripeEvent(id))
				q.body = append(q.body[:len(q.body)-1], `,"x":"`+strings.Repeat(id, 1+rand.IntN(8000))+`"}`...)
				q.header = stripeRequest(q.body).header
				q.chunked = i%2 == 0
				if status := r.post(q); status != 200 && status != 503 {
					t.Errorf("status %d", status)
				}
			}
		})
	}
	wg.Wait()
	late.Wait()
}
