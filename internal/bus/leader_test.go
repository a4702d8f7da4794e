package bus_test

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
)

// handled is what a handler was given, and lets a test wait for it.
type handled struct {
	mu   sync.Mutex
	data []string
}

func (h *handled) add(m contracts.Message) (times int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.data = append(h.data, string(m.Data))
	return h.times(string(m.Data))
}

func (h *handled) times(data string) (n int) {
	for _, d := range h.data {
		if d == data {
			n++
		}
	}
	return n
}

func (h *handled) await(t *testing.T, data ...string) {
	t.Helper()
	deadline := time.Now().Add(2 * time.Minute)
	for {
		h.mu.Lock()
		missing := slices.DeleteFunc(slices.Clone(data), func(d string) bool { return h.times(d) > 0 })
		h.mu.Unlock()
		if len(missing) == 0 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("never handled: %v", missing)
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// forget makes the server take the next messages of the durable for acknowledged though
// nobody has handled them, as a new leader was seen to do with what the former had
// delivered.
func (r *rig) forget(n int) (data []string) {
	r.t.Helper()
	c, err := r.JetStream("consumers").Consumer(r.t.Context(), "WEBHOOKS", "billing")
	if err != nil {
		r.t.Fatal(err)
	}
	for deadline := time.Now().Add(time.Minute); len(data) < n; {
		if time.Now().After(deadline) {
			r.t.Fatalf("the server gave %d of %d messages", len(data), n)
		}
		batch, err := c.Fetch(n-len(data), jetstream.FetchMaxWait(5*time.Second))
		if err != nil {
			r.t.Fatal(err)
		}
		for m := range batch.Messages() {
			data = append(data, string(m.Data()))
			if err := m.DoubleAck(r.t.Context()); err != nil {
				r.t.Fatal(err)
			}
		}
	}
	return data
}

// newLeader gives the durable another leader.
func (r *rig) newLeader() {
	r.t.Helper()
	former := r.consumer().Cluster.Leader
	deadline := time.Now().Add(time.Minute)
	for {
		ctx, cancel := context.WithTimeout(r.t.Context(), 5*time.Second)
		_, err := r.js.Conn().RequestWithContext(ctx, "$JS.API.CONSUMER.LEADER.STEPDOWN.WEBHOOKS.billing", nil)
		cancel()
		for range 20 {
			c, err := r.js.Consumer(r.t.Context(), "WEBHOOKS", "billing")
			if err == nil && c.CachedInfo().Cluster.Leader != "" && c.CachedInfo().Cluster.Leader != former {
				return
			}
			time.Sleep(50 * time.Millisecond)
		}
		if time.Now().After(deadline) {
			r.t.Fatalf("the durable keeps its leader: %v", err)
		}
	}
}

// A process that starts soon after a change of leader does not know what was in hand, so
// it looks back some minutes. What is not done at once is tried again.
func TestWhatAFormerLeaderDeliveredIsHandled(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.Cluster)
	r.send(5)
	lost := r.forget(3)
	var h handled
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		errs := make([]error, len(msgs))
		for i, m := range msgs {
			if h.add(m) == 1 && string(m.Data) == lost[0] {
				errs[i] = outcome.NotYet(time.Hour)
			}
		}
		return errs
	})
	h.await(t, "0", "1", "2", "3", "4")
	deadline := time.Now().Add(2 * time.Minute)
	for {
		h.mu.Lock()
		n := h.times(lost[0])
		h.mu.Unlock()
		if n >= 2 {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("what was not done at first was not tried again")
		}
		time.Sleep(20 * time.Millisecond)
	}
}

// A process that sees the change knows how far back it has to look: to what was not
// acknowledged before, however long ago it was stored.
func TestWhatWasInHandAtAChangeOfLeaderIsHandled(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.Cluster)
	var h handled
	entered, release := make(chan struct{}), make(chan struct{})
	r.run(func(ctx context.Context, msgs []contracts.Message) []error {
		errs := make([]error, len(msgs))
		for _, m := range msgs {
			if h.add(m) == 1 && string(m.Data) == "0" {
				close(entered)
				<-release
			}
		}
		return errs
	}, func(o *bus.Options) { o.Max = 1 })
	r.send(20)
	<-entered
	lost := r.forget(10) // the loop waits in its handler, so these go elsewhere
	r.newLeader()
	close(release)
	h.await(t, lost...)
}
