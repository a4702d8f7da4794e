package bus_test

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) {
	draws := "40" // of a property; each starts callers by the dozen
	if d := os.Getenv("RAPID_CHECKS"); d != "" {
		draws = d
	}
	if err := flag.Set("rapid.checks", draws); err != nil {
		panic(err)
	}
	// A cluster's server that is stopped while it still opens its streams can forget one
	// of their files; nothing of ours runs in there.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*fileStore).flushStreamStateLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server.(*msgBlock).flushLoop"),
		goleak.IgnoreAnyFunction("github.com/nats-io/nats-server/v2/server/ats.Register.func1"))
}

// rig is a server with one durable whose messages a test handles.
type rig struct {
	*natstest.Server
	t       *testing.T
	js      jetstream.JetStream // the operator's
	store   *state.Store
	publish *bus.Publisher
}

func newRig(t *testing.T, opts ...natstest.Option) *rig {
	t.Helper()
	s := natstest.New(t, opts...)
	return &rig{Server: s, t: t, js: s.JetStream("operator"), store: state.New(s.JetStream("consumers"), nil),
		publish: bus.NewPublisher(s.JetStream("edge"))}
}

// send stores n webhooks for the billing durable.
func (r *rig) send(n int) {
	r.t.Helper()
	msgs := make([]contracts.Message, n)
	for i := range msgs {
		msgs[i] = contracts.Message{Subject: contracts.SubjectStripe("test"), ID: "stripe:" + strconv.Itoa(i), Data: []byte(strconv.Itoa(i))}
	}
	if err := r.publish.Publish(r.t.Context(), msgs); err != nil {
		r.t.Fatal(err)
	}
}

// run runs a loop over billing until the returned stop is called.
func (r *rig) run(h bus.Handler, change ...func(*bus.Options)) (stop func()) {
	r.t.Helper()
	o := bus.Options{Stream: "WEBHOOKS", Durable: "billing", Handle: h, Max: 100, Store: r.store,
		Log: slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: bus.NewMetrics(prometheus.NewRegistry())}
	for _, c := range change {
		c(&o)
	}
	l, err := bus.NewLoop(r.JetStream("consumers"), o)
	if err != nil {
		r.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- l.Run(ctx) }()
	stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				r.t.Errorf("Run: %v", err)
			}
		case <-time.After(20 * time.Second):
			r.t.Error("the loop did not drain within 20 s")
		}
	})
	r.t.Cleanup(stop)
	return stop
}

func (r *rig) consumer() *jetstream.ConsumerInfo {
	r.t.Helper()
	c, err := r.js.Consumer(context.Background(), "WEBHOOKS", "billing")
	if err != nil {
		r.t.Fatal(err)
	}
	return c.CachedInfo()
}

func (r *rig) keys(prefix string) []string {
	r.t.Helper()
	kv, err := r.js.KeyValue(context.Background(), "crm")
	if err != nil {
		r.t.Fatal(err)
	}
	all, err := kv.Keys(context.Background())
	if err != nil && !errors.Is(err, jetstream.ErrNoKeysFound) {
		r.t.Fatal(err)
	}
	all = slices.DeleteFunc(all, func(k string) bool { return !strings.HasPrefix(k, prefix) })
	slices.Sort(all)
	return all
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(time.Minute)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("still not so after a minute: %s", what)
		}
		time.Sleep(5 * time.Millisecond)
	}
}

func (r *rig) allSettled() bool {
	ok, err := bus.Settled(context.Background(), r.js, contracts.StreamWebhooks, contracts.Billing)
	return err == nil && ok
}

func TestSameMessageManyTimesIsStoredOnce(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	m := contracts.Message{Subject: contracts.SubjectStripe("test"), ID: "stripe:evt_1", Data: []byte("{}")}
	var wg sync.WaitGroup
	for range 20 {
		wg.Go(func() {
			if err := r.publish.Publish(t.Context(), []contracts.Message{m}); err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	s, err := r.js.Stream(t.Context(), "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	if got := s.CachedInfo().State.Msgs; got != 1 {
		t.Errorf("%d messages stored", got)
	}
}

func TestPublishGivesUpWhenTheStreamIsFull(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	s, err := r.js.Stream(t.Context(), "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	cfg := s.CachedInfo().Config
	cfg.MaxMsgs = 3
	if _, err := r.js.UpdateStream(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	r.send(3)
	m := contracts.Message{Subject: contracts.SubjectStripe("test"), ID: "stripe:one_more", Data: []byte("{}")}
	start := time.Now()
	if err := r.publish.Publish(t.Context(), []contracts.Message{m}); err == nil {
		t.Error("a full stream took a webhook")
	}
	if took := time.Since(start); took > 30*time.Second {
		t.Errorf("a full stream was asked again and again for %v", took)
	}
	s, err = r.js.Stream(t.Context(), "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	if err := bus.Ready(s.CachedInfo()); err == nil {
		t.Error("ready though full")
	}
}

// A stream that refuses says so until it takes something new again, or for a while.
func TestRefusedTellsOfAFullStream(t *testing.T) {
	t.Parallel()
	s := natstest.New(t, natstest.LazySync)
	js := s.JetStream("operator")
	p := bus.NewPublisher(s.JetStream("edge"))
	send := func(id string) error {
		return p.Publish(t.Context(), []contracts.Message{{Subject: contracts.SubjectStripe("test"), ID: id, Data: make([]byte, 300)}})
	}
	resize := func(bytes int64) {
		stream, err := js.Stream(t.Context(), contracts.StreamWebhooks)
		if err != nil {
			t.Fatal(err)
		}
		c := stream.CachedInfo().Config
		c.MaxBytes = bytes
		if _, err := js.UpdateStream(t.Context(), c); err != nil {
			t.Fatal(err)
		}
	}
	resize(1000) // two messages, and no room for a third before it is full
	for _, id := range []string{"1", "2"} {
		if err := send(id); err != nil || p.Refused() != nil {
			t.Fatalf("%v, %v", err, p.Refused())
		}
	}
	if err := send("3"); err == nil || p.Refused() == nil {
		t.Errorf("a full stream: %v, refused %v", err, p.Refused())
	}
	if err := send("1"); err != nil || p.Refused() == nil {
		t.Errorf("a duplicate needs no room: %v, refused %v", err, p.Refused())
	}
	resize(-1)
	if err := send("3"); err != nil || p.Refused() != nil {
		t.Errorf("with room again: %v, refused %v", err, p.Refused())
	}
}

// A leader that is killed in the middle costs time, and no webhook.
func TestPublishSurvivesTheLeader(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.Cluster)
	info, err := r.js.Stream(t.Context(), "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	leader := info.CachedInfo().Cluster.Leader
	var wg sync.WaitGroup
	var sent atomic.Int64
	stop := make(chan struct{})
	for w := range 4 {
		wg.Go(func() {
			for i := 0; ; i++ {
				select {
				case <-stop:
					return
				default:
				}
				ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
				m := contracts.Message{Subject: contracts.SubjectStripe("test"), ID: fmt.Sprintf("stripe:%d-%d", w, i), Data: []byte("{}")}
				if err := r.publish.Publish(ctx, []contracts.Message{m}); err != nil {
					t.Errorf("a webhook was refused: %v", err)
				}
				cancel()
				sent.Add(1)
			}
		})
	}
	eventually(t, "webhooks flow", func() bool { return sent.Load() > 50 })
	for i, n := range r.Nodes {
		if n.Server().Name() == leader {
			n.Stop()
			before := sent.Load()
			eventually(t, "webhooks flow again", func() bool { return sent.Load() > before+50 })
			r.Start(i)
		}
	}
	close(stop)
	wg.Wait()
	eventually(t, "everything is stored once", func() bool {
		s, err := r.js.Stream(context.Background(), "WEBHOOKS")
		return err == nil && s.CachedInfo().State.Msgs == uint64(sent.Load())
	})
}

func TestBatchesGrowWithTheBacklogAndShrinkAgain(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.LazySync)
	r.send(1000)
	var mu sync.Mutex
	var sizes []int
	stop := r.run(func(_ context.Context, msgs []contracts.Message) []error {
		mu.Lock()
		sizes = append(sizes, len(msgs))
		mu.Unlock()
		time.Sleep(2 * time.Millisecond)
		return make([]error, len(msgs))
	})
	eventually(t, "the backlog is done", r.allSettled)
	mu.Lock()
	if biggest := slices.Max(sizes); biggest < 50 || biggest > 100 {
		t.Errorf("biggest batch of 1000 waiting: %d, want 50 to 100", biggest)
	}
	sizes = nil
	mu.Unlock()
	m := contracts.Message{Subject: contracts.SubjectStripe("test"), ID: "stripe:last", Data: []byte("{}")}
	if err := r.publish.Publish(t.Context(), []contracts.Message{m}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the last one is done", func() bool { mu.Lock(); defer mu.Unlock(); return len(sizes) == 1 })
	stop()
	if sizes[0] != 1 {
		t.Errorf("a single message came in a batch of %d", sizes[0])
	}
}

// On three servers, with the durable's leader anywhere, also while one is gone.
// What comes while the handler could not go on anyhow is handled at once with what came
// before.
func TestWaitGathers(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	batches := make(chan int, 5)
	var asked atomic.Bool
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		batches <- len(msgs)
		return make([]error, len(msgs))
	}, func(o *bus.Options) {
		o.Max = 5
		o.Wait = func() time.Duration {
			asked.Store(true)
			return time.Hour
		}
	})
	r.send(1)
	eventually(t, "the first message waits", asked.Load)
	r.send(5)
	if n := <-batches; n != 5 {
		t.Errorf("a batch of %d messages, want 5", n)
	}
	eventually(t, "all settled", r.allSettled)
}

func TestLoopOnACluster(t *testing.T) {
	t.Parallel()
	r := newRig(t, natstest.Cluster)
	// What was on its way through the server that goes comes again after this.
	c := r.consumer().Config
	c.AckWait = 3 * time.Second
	if _, err := r.js.UpdateConsumer(t.Context(), "WEBHOOKS", c); err != nil {
		t.Fatal(err)
	}
	r.send(1000)
	var mu sync.Mutex
	handled := map[string]int{}
	for range 3 { // each connects to some server
		r.run(bus.Fold("billing", r.store, 1,
			func(_ context.Context, m contracts.Message) (string, error) { return string(m.Data), nil },
			func(tx *state.Tx, data string) error {
				mu.Lock()
				handled[data]++
				mu.Unlock()
				return tx.Put("customer."+data, data)
			}))
	}
	count := func() int {
		mu.Lock()
		defer mu.Unlock()
		return len(handled)
	}
	eventually(t, "messages flow", func() bool { return count() > 0 })
	r.Nodes[0].Stop()
	eventually(t, "all are handled", func() bool { return count() == 1000 })
	r.Start(0)
	eventually(t, "all are settled", func() bool {
		return r.allSettled()
	})
	// A listing may be answered by the server that came back, which catches up first.
	eventually(t, "all records are there", func() bool { return len(r.keys("customer.")) == 1000 })
}

// A message that has waited often, or was handed back by processes that ended, waits no
// longer than any other after its first failure. (A text whose third process met a rate
// limit once waited eight minutes.)
func TestWaitingLengthensNoPause(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	const waits = 12 // as many deliveries would stand for a pause of up to ten minutes
	r.send(20)
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		errs := make([]error, len(msgs))
		for i, m := range msgs {
			switch {
			case m.Attempt <= waits:
				errs[i] = outcome.NotYet(time.Millisecond)
			case m.Attempt == waits+1:
				errs[i] = outcome.Temporary(outcome.RateLimited, errors.New("slower"))
			}
		}
		return errs
	})
	eventually(t, "all come again within a minute", r.allSettled)
}

func TestSettle(t *testing.T) {
	t.Parallel()
	var seen sync.Map // data → deliveries
	for _, tt := range []struct {
		name      string
		err       func(m contracts.Message) error
		delivered int
		incident  bool
	}{
		{"nil is acked", func(contracts.Message) error { return nil }, 1, false},
		{"permanent is given up with an incident", func(contracts.Message) error { return outcome.Permanentf(outcome.Malformed, "unreadable") }, 1, true},
		{"temporary comes again", func(m contracts.Message) error {
			if m.Attempt < 3 {
				return errors.New("not now")
			}
			return nil
		}, 3, false},
		{"not yet comes again", func(m contracts.Message) error {
			if m.Attempt < 2 {
				return outcome.NotYet(20 * time.Millisecond)
			}
			return nil
		}, 2, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := newRig(t)
			r.send(2)
			r.run(func(_ context.Context, msgs []contracts.Message) []error {
				errs := make([]error, len(msgs))
				for i, m := range msgs {
					if string(m.Data) == "1" { // 0 is fine, and must not suffer
						seen.Store(tt.name, m.Attempt)
						errs[i] = tt.err(m)
					}
				}
				return errs
			})
			eventually(t, "both settled", r.allSettled)
			if n, _ := seen.Load(tt.name); n != tt.delivered {
				t.Errorf("delivered %v times, want %d", n, tt.delivered)
			}
			incidents := r.keys("incident.")
			if (len(incidents) == 1) != tt.incident {
				t.Fatalf("incidents: %v", incidents)
			}
			if tt.incident {
				var i contracts.Incident
				if _, err := r.store.Get(t.Context(), incidents[0], &i); err != nil {
					t.Fatal(err)
				}
				want := fmt.Sprintf("nats consumer reset WEBHOOKS billing --sequence %d --force", i.Sequence)
				if i.Action != want || i.Reason != "unreadable" || i.Sequence == 0 || incidents[0] != fmt.Sprintf("incident.billing-%d", i.Sequence) {
					t.Errorf("incident: %+v", i)
				}
			}
		})
	}
}

func TestFoldLeavesThePoisonOut(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.send(50)
	decide := func(tx *state.Tx, n int) error {
		sum, _, err := state.Get[[]int](tx, "customer.sum")
		if err != nil {
			return err
		}
		if !slices.Contains(sum, n) {
			sum = append(sum, n)
			slices.Sort(sum)
		}
		if err := tx.Put("customer.sum", sum); err != nil {
			return err
		}
		switch n {
		case 13:
			return outcome.Permanentf(outcome.Refused, "thirteen")
		case 14:
			panic("fourteen")
		}
		return nil
	}
	prepare := func(_ context.Context, m contracts.Message) (int, error) {
		n, err := strconv.Atoi(string(m.Data))
		if n == 15 {
			return 0, outcome.Permanentf(outcome.Malformed, "fifteen")
		}
		return n, err
	}
	stop := r.run(bus.Fold("billing", r.store, 1, prepare, decide))
	eventually(t, "all settled", r.allSettled)
	stop()
	var sum []int
	if _, err := r.store.Get(t.Context(), "customer.sum", &sum); err != nil {
		t.Fatal(err)
	}
	if len(sum) != 47 || slices.Contains(sum, 13) || slices.Contains(sum, 14) || slices.Contains(sum, 15) {
		t.Errorf("folded: %v", sum)
	}
	if got := r.keys("incident."); len(got) != 3 {
		t.Errorf("incidents: %v", got)
	}

	// A replay of everything writes nothing: no record, and no second incident.
	before := r.crmSequence()
	stream, err := r.js.Stream(t.Context(), "WEBHOOKS")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.ResetConsumerToSequence(t.Context(), "billing", 1); err != nil {
		t.Fatal(err)
	}
	r.run(bus.Fold("billing", r.store, 1, prepare, decide))
	eventually(t, "the replay is settled", r.allSettled)
	if after := r.crmSequence(); after != before {
		t.Errorf("the replay wrote %d messages", after-before)
	}
}

func (r *rig) crmSequence() uint64 {
	r.t.Helper()
	s, err := r.js.Stream(context.Background(), "KV_crm")
	if err != nil {
		r.t.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

// While the provider refuses us as a whole, messages wait: one incident, few calls,
// and the rest by itself once it takes us again.
func TestBlocked(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.send(200)
	var refused, calls atomic.Int64
	refused.Store(1)
	prepare := func(context.Context, contracts.Message) (int, error) {
		calls.Add(1)
		if refused.Load() == 1 {
			return 0, outcome.Blocked(outcome.Auth, errors.New("token expired"))
		}
		return 0, nil
	}
	r.run(bus.Fold("billing", r.store, 4, prepare, func(*state.Tx, int) error { return nil }))
	eventually(t, "the incident", func() bool { return len(r.keys("incident.")) == 1 })
	time.Sleep(300 * time.Millisecond) // calls that should not happen would happen now
	if n := calls.Load(); n > 30 {
		t.Errorf("%d calls while refused", n)
	}
	var i contracts.Incident
	if _, err := r.store.Get(t.Context(), "incident.billing-auth", &i); err != nil {
		t.Fatal(err)
	}
	if i.Severity != contracts.SeverityError || !i.ResolvedAt.IsZero() {
		t.Errorf("incident: %+v", i)
	}
	refused.Store(0)
	eventually(t, "everything went on", r.allSettled)
	eventually(t, "the incident is closed", func() bool {
		_, err := r.store.Get(t.Context(), "incident.billing-auth", &i)
		return err == nil && !i.ResolvedAt.IsZero()
	})
	if got := r.keys("incident."); len(got) != 1 {
		t.Errorf("incidents: %v", got)
	}
}

// The server must not give a message to somebody else while it is being worked on.
func TestHeartbeatsForLongWork(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	c := r.consumer().Config
	c.AckWait = time.Second // a busy machine may stand still for half of it
	if _, err := r.js.UpdateConsumer(t.Context(), "WEBHOOKS", c); err != nil {
		t.Fatal(err)
	}
	r.send(3)
	var deliveries atomic.Int64
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		deliveries.Add(int64(len(msgs)))
		time.Sleep(2500 * time.Millisecond)
		return make([]error, len(msgs))
	})
	eventually(t, "settled", r.allSettled)
	if n := deliveries.Load(); n != 3 {
		t.Errorf("%d deliveries of 3 messages", n)
	}
}

// A stop finishes what is in hand and hands the rest back at once.
func TestDrain(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	r.send(40)
	started := make(chan struct{}, 1)
	var handled atomic.Int64
	stop := r.run(func(ctx context.Context, msgs []contracts.Message) []error {
		select {
		case started <- struct{}{}:
		default:
		}
		time.Sleep(200 * time.Millisecond)
		if ctx.Err() != nil {
			t.Error("work in hand was cancelled by the stop")
		}
		handled.Add(int64(len(msgs)))
		return make([]error, len(msgs))
	}, func(o *bus.Options) { o.Max = 5 })
	<-started
	stop()
	first := handled.Load()
	if first == 0 || first == 40 {
		t.Errorf("%d handled before the stop", first)
	}
	start := time.Now()
	r.run(func(_ context.Context, msgs []contracts.Message) []error {
		handled.Add(int64(len(msgs)))
		return make([]error, len(msgs))
	})
	eventually(t, "the rest is done", r.allSettled)
	if took := time.Since(start); took > 10*time.Second {
		t.Errorf("the rest came only after %v: it was not handed back", took)
	}
	if n := handled.Load(); n != 40 {
		t.Errorf("%d handled in all, want 40", n)
	}
}

func TestDeletedDurableEndsTheLoop(t *testing.T) {
	t.Parallel()
	r := newRig(t)
	l, err := bus.NewLoop(r.JetStream("consumers"), bus.Options{Stream: "WEBHOOKS", Durable: "billing", Max: 10, Store: r.store,
		Handle: func(_ context.Context, m []contracts.Message) []error { return make([]error, len(m)) },
		Log:    slog.New(slog.NewTextHandler(io.Discard, nil)), Metrics: bus.NewMetrics(nil)})
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- l.Run(t.Context()) }()
	eventually(t, "the loop waits for messages", func() bool { return r.consumer().NumWaiting > 0 })
	if err := r.js.DeleteConsumer(t.Context(), "WEBHOOKS", "billing"); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-ended:
		if err == nil {
			t.Error("nil, though the durable is gone")
		}
	case <-time.After(15 * time.Second):
		t.Error("the loop goes on without its durable")
	}
}
