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
	var h handled
	entered, release := make(chan struct{}), make(chan struct{})
	done := make(chan struct{})
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		errs := make([]error, len(msgs))
		for i, m := range msgs {
			switch n := h.add(m); {
			case string(m.Data) == "1" && n == 1: // the loop asks for nothing while the server forgets
				close(entered)
				<-release
			case string(m.Data) == "0" && n < 3:
				errs[i] = outcome.NotYet(time.Second)
			case string(m.Data) == "0" && n == 3:
				close(done)
			}
		}
		return errs
	}, func(o *bus.Options) { o.Max, o.Overdue = 1, time.Second })
	r.send(4) // one more waits behind the handler, and one for a place there
	<-entered
	if lost := r.forget(1); lost[0] != "0" {
		t.Fatalf("the server forgot %q, not what was handed back", lost)
	}
	close(release)
	select {
	case <-done:
	case <-time.After(2 * time.Minute):
		t.Fatal("what was handed back never came again")
	}
	h.await(t, "2", "3")
}
