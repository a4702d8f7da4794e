package bus_test

import (
	"context"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/outcome"
)

// A message that was handed back and that the server then forgets, as one that was stopped
// and went on was seen to, is handled all the same, until it is done.
func TestWhatWasHandedBackAndForgottenIsHandled(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	// Two will be handled, two queued, and two more wait for a place: when the first is
	// handed back, the loop asks for nothing.
	r.send(6)
	var first string // which of them came first into the stream
	if err := bus.Messages(t.Context(), r.js, bus.Range{Stream: "WEBHOOKS", First: 1, Last: 1}, func(m contracts.Message, _ uint64) error {
		first = string(m.Data)
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	var h handled
	given, release, done := make(chan struct{}), make(chan struct{}), make(chan struct{})
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		errs := make([]error, len(msgs))
		for i, m := range msgs {
			switch n := h.add(m); {
			case string(m.Data) != first:
				<-release
			case n == 1:
				<-given
				errs[i] = outcome.NotYet(time.Second)
			case n == 2:
				errs[i] = outcome.NotYet(time.Second)
			case n == 3:
				close(done)
			}
		}
		return errs
	}, func(o *bus.Options) { o.Max, o.Workers, o.Overdue = 1, 2, time.Second })
	eventually(t, "all delivered", func() bool { return r.consumer().NumPending == 0 })
	close(given)
	if lost := r.forget(1); lost[0] != first {
		t.Fatalf("the server forgot %q, not what was handed back", lost)
	}
	close(release)
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("what was handed back never came again")
	}
	h.await(t, "0", "1", "2", "3", "4", "5")
}
