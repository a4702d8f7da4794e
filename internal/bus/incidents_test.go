package bus_test

import (
	"context"
	"fmt"
	"os"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/incident"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// incidents are those of the bucket, the open ones apart from the closed.
func (r *rig) incidents() (open, closed map[string]contracts.Incident) {
	r.t.Helper()
	open, closed = map[string]contracts.Incident{}, map[string]contracts.Incident{}
	for _, key := range r.keys("incident.") {
		var i contracts.Incident
		if _, err := r.store.Get(context.Background(), key, &i); err != nil {
			r.t.Fatal(err)
		}
		if i.ResolvedAt.IsZero() {
			open[i.ID] = i
		} else {
			closed[i.ID] = i
		}
	}
	return open, closed
}

// reset has billing's messages delivered again from the first on, as the operator does.
func (r *rig) reset() {
	r.t.Helper()
	stream, err := r.js.Stream(r.t.Context(), "WEBHOOKS")
	if err != nil {
		r.t.Fatal(err)
	}
	if _, err := stream.ResetConsumerToSequence(r.t.Context(), "billing", 1); err != nil {
		r.t.Fatal(err)
	}
}

// For every reason: a message that fails for it has an incident, which its replay closes
// once the cause is mended, and which no further replay touches.
func TestEveryReasonOpensAndCloses(t *testing.T) {
	t.Parallel()
	reasons := outcome.Reasons()
	var broken atomic.Bool
	judge := func(n int) error {
		if !broken.Load() {
			return nil
		}
		return outcome.Permanentf(reasons[n], "it can't be done")
	}
	prepare := func(_ context.Context, m contracts.Message) (int, error) { return strconv.Atoi(string(m.Data)) }
	for name, handler := range map[string]func(*state.Store) bus.Handler{
		"a consumer that decides": func(s *state.Store) bus.Handler {
			return bus.Fold("billing", s, 1, prepare, func(_ *state.Tx, n int) error { return judge(n) })
		},
		"a consumer that carries out": func(*state.Store) bus.Handler {
			return func(ctx context.Context, msgs []contracts.Message) []error {
				errs := make([]error, len(msgs))
				for i, m := range msgs {
					n, err := prepare(ctx, m)
					if err != nil {
						t.Error(err)
					}
					errs[i] = judge(n)
				}
				return errs
			}
		},
	} {
		t.Run(name, func(t *testing.T) { // not side by side: they share what is broken
			r := newRig(t)
			broken.Store(true)
			r.send(len(reasons))
			stop := r.run(handler(r.store))
			eventually(t, "all given up", r.allSettled)
			open, _ := r.incidents()
			if len(open) != len(reasons) {
				t.Errorf("%d incidents of %d failures", len(open), len(reasons))
			}
			broken.Store(false)
			r.reset()
			eventually(t, "all closed", func() bool { open, _ := r.incidents(); return len(open) == 0 && r.allSettled() })
			if _, closed := r.incidents(); len(closed) != len(reasons) {
				t.Errorf("%d of %d closed", len(closed), len(reasons))
			}
			before := r.crmSequence()
			r.reset()
			eventually(t, "replayed once more", r.allSettled)
			stop()
			if n := r.crmSequence() - before; n != 0 {
				t.Errorf("a replay after that wrote %d messages", n)
			}
		})
	}
}

// A consumer that had to wait has an incident whatever the reason, and it is closed by
// the first success, also of another process than the one that opened it.
func TestEveryReasonToWaitIsClosed(t *testing.T) {
	t.Parallel()
	for _, reason := range outcome.Reasons() {
		t.Run(string(reason), func(t *testing.T) {
			t.Parallel()
			r := newRig(t, natstest.LazySync)
			r.send(3)
			stop := r.run(func(_ context.Context, msgs []contracts.Message) []error {
				errs := make([]error, len(msgs))
				for i := range errs {
					errs[i] = outcome.Blocked(reason, fmt.Errorf("no"))
				}
				return errs
			})
			eventually(t, "an incident", func() bool { open, _ := r.incidents(); return len(open) == 1 })
			stop()
			r.run(func(_ context.Context, msgs []contracts.Message) []error { return make([]error, len(msgs)) })
			eventually(t, "closed", func() bool { open, closed := r.incidents(); return len(open) == 0 && len(closed) == 1 })
		})
	}
}

// A record that could not be carried out closes its incident when its next revision is.
func TestTheNextRevisionCloses(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	put := func(value string) {
		err := r.store.Update(t.Context(), func(tx *state.Tx) error { return tx.Put("sms.welcome.1", map[string]string{"v": value}) })
		if err != nil {
			t.Fatal(err)
		}
	}
	put("bad")
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		errs := make([]error, len(msgs))
		for i, m := range msgs {
			if string(m.Data) == `{"v":"bad"}` {
				errs[i] = outcome.Permanentf(outcome.Refused, "no")
			}
		}
		return errs
	}, func(o *bus.Options) { o.Stream, o.Durable = "KV_crm", "sms" })
	eventually(t, "an incident", func() bool { open, _ := r.incidents(); return len(open) == 1 })
	put("good")
	eventually(t, "closed", func() bool { open, _ := r.incidents(); return len(open) == 0 })
}

// However many messages fail, at most 100 incidents are open, and those behind them are
// not held up. STRESS=1 takes 100,000.
func TestPoison(t *testing.T) {
	t.Parallel()
	n := 5000
	if os.Getenv("STRESS") != "" {
		n = 100_000
	}
	r := newRig(t, natstest.LazySync)
	prepare := func(_ context.Context, m contracts.Message) (int, error) { return strconv.Atoi(string(m.Data)) }
	good := make(chan int, n)
	decide := func(tx *state.Tx, i int) error {
		if i >= n {
			return tx.Put(fmt.Sprintf("customer.%d", i), i)
		}
		return outcome.Permanentf(outcome.Reasons()[i%7], "poison %d", i)
	}
	start := time.Now()
	r.run(bus.Fold("billing", r.store, 1, prepare, func(tx *state.Tx, i int) error {
		err := decide(tx, i)
		if err == nil {
			good <- i
		}
		return err
	}), func(o *bus.Options) { o.Max = 400 })
	r.send(n + 20) // the last 20 are good
	sent := time.Now()
	for range 20 {
		<-good
	}
	t.Logf("%d failed messages sent in %v, the good ones behind them done %v later", n, sent.Sub(start).Round(time.Millisecond), time.Since(sent).Round(time.Millisecond))
	eventually(t, "all settled", r.allSettled)
	open, _ := r.incidents()
	count := 0
	for _, i := range open {
		count += i.Count
	}
	if len(open) > incident.MostOpen || count != n {
		t.Errorf("%d open, which count %d of %d", len(open), count, n)
	}
	if got := r.keys("customer."); len(got) != 20 {
		t.Errorf("%d good messages done", len(got))
	}
}
