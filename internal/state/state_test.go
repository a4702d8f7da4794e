package state_test

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"go.uber.org/goleak"

	"leadpipe/internal/natstest"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

type number struct {
	N    int    `json:"n"`
	Note string `json:"note,omitempty"`
}

// bucket is a running server's crm bucket, as an operator sees it.
type bucket struct {
	*natstest.Server
	tb testing.TB
	kv jetstream.KeyValue
	js jetstream.JetStream
}

func open(tb testing.TB, opts ...natstest.Option) *bucket {
	tb.Helper()
	s := natstest.New(tb, opts...)
	js := s.JetStream("operator")
	kv, err := js.KeyValue(tb.Context(), "crm")
	if err != nil {
		tb.Fatal(err)
	}
	return &bucket{Server: s, tb: tb, kv: kv, js: js}
}

func (b *bucket) store(reg prometheus.Registerer) *state.Store {
	return state.New(b.JetStream("consumers"), reg)
}

func (b *bucket) lastSequence() uint64 {
	b.tb.Helper()
	s, err := b.js.Stream(context.Background(), "KV_crm")
	if err != nil {
		b.tb.Fatal(err)
	}
	return s.CachedInfo().State.LastSeq
}

func (b *bucket) put(key, value string) {
	b.tb.Helper()
	if _, err := b.kv.PutString(context.Background(), key, value); err != nil {
		b.tb.Fatal(err)
	}
}

func (b *bucket) value(key string) string {
	b.tb.Helper()
	e, err := b.kv.Get(context.Background(), key)
	if errors.Is(err, jetstream.ErrKeyNotFound) {
		return ""
	}
	if err != nil {
		b.tb.Fatal(err)
	}
	return string(e.Value())
}

func add(tx *state.Tx, key string, n int) error {
	r, _, err := state.Get[number](tx, key)
	if err != nil {
		return err
	}
	r.N += n
	return tx.Put(key, r)
}

func TestUpdateWritesWhatChangedAndNothingElse(t *testing.T) {
	t.Parallel()
	b := open(t)
	reg := prometheus.NewRegistry()
	s := b.store(reg)
	both := func(tx *state.Tx) error {
		if err := tx.Put("lead.1", number{N: 1}); err != nil {
			return err
		}
		return tx.Put("contact.33639980102", number{N: 2})
	}
	for range 2 {
		if err := s.Update(t.Context(), both); err != nil {
			t.Fatal(err)
		}
	}
	if got := b.lastSequence(); got != 2 {
		t.Errorf("two records, written twice with the same bytes: last sequence %d", got)
	}
	if err := s.Update(t.Context(), func(tx *state.Tx) error { return tx.Put("lead.1", number{N: 7}) }); err != nil {
		t.Fatal(err)
	}
	if got := b.value("lead.1"); got != `{"n":7}` {
		t.Errorf("lead.1: %s", got)
	}
	want := `
# HELP state_commits_total Commits to the crm bucket, by form: single or batch.
# TYPE state_commits_total counter
state_commits_total{form="batch"} 1
state_commits_total{form="single"} 1
`
	if err := testutil.GatherAndCompare(reg, strings.NewReader(want), "state_commits_total"); err != nil {
		t.Error(err)
	}
}

func TestFailedUpdateWritesNothing(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	no := errors.New("no")
	err := s.Update(t.Context(), func(tx *state.Tx) error {
		if err := tx.Put("lead.1", number{N: 1}); err != nil {
			return err
		}
		return no
	})
	if !errors.Is(err, no) {
		t.Errorf("error %v", err)
	}
	if got := b.lastSequence(); got != 0 {
		t.Errorf("last sequence %d", got)
	}
}

func TestOperatorsCommandsAndUpdatesMix(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	b.put("lead.1", `{"n":3}`)
	if err := s.Update(t.Context(), func(tx *state.Tx) error { return add(tx, "lead.1", 1) }); err != nil {
		t.Fatal(err)
	}
	if got := b.value("lead.1"); got != `{"n":4}` {
		t.Errorf("after put: %s", got)
	}
	if err := b.kv.Delete(t.Context(), "lead.1"); err != nil {
		t.Fatal(err)
	}
	if err := s.Update(t.Context(), func(tx *state.Tx) error { return add(tx, "lead.1", 1) }); err != nil {
		t.Fatal(err)
	}
	if got := b.value("lead.1"); got != `{"n":1}` {
		t.Errorf("after delete: %s", got)
	}
	if err := b.kv.Purge(t.Context(), "lead.1"); err != nil {
		t.Fatal(err)
	}
	var r number
	if ok, err := s.Get(t.Context(), "lead.1", &r); ok || err != nil {
		t.Errorf("after purge: %v, %v", ok, err)
	}
}

// Two decisions that each read what the other writes: one of them has to see the
// other's change, or both would act on what is no longer so.
func TestWriteSkew(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name   string
		before map[string]string
	}{
		{"records that exist", map[string]string{"customer.a": `{"n":1}`, "customer.b": `{"n":1}`}},
		{"records that do not exist yet", nil},
	} {
		for _, cluster := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s cluster=%v", tt.name, cluster), func(t *testing.T) {
				t.Parallel()
				var opts []natstest.Option
				if cluster {
					opts = append(opts, natstest.Cluster)
				}
				b := open(t, opts...)
				for k, v := range tt.before {
					b.put(k, v)
				}
				// Whoever comes first stops (n: 9); the other one must not.
				stop := func(own, other string, met *sync.WaitGroup) func(*state.Tx) error {
					first := true
					return func(tx *state.Tx) error {
						o, _, err := state.Get[number](tx, other)
						if err != nil {
							return err
						}
						if _, _, err := state.Get[number](tx, own); err != nil {
							return err
						}
						if first { // both have read before either commits
							first = false
							met.Done()
							met.Wait()
						}
						if o.N == 9 {
							return nil
						}
						return tx.Put(own, number{N: 9})
					}
				}
				var met, done sync.WaitGroup
				met.Add(2)
				for _, k := range [][2]string{{"customer.a", "customer.b"}, {"customer.b", "customer.a"}} {
					s := b.store(nil)
					done.Go(func() {
						if err := s.Update(t.Context(), stop(k[0], k[1], &met)); err != nil {
							t.Error(err)
						}
					})
				}
				done.Wait()
				if x, y := b.value("customer.a"), b.value("customer.b"); (x == `{"n":9}`) == (y == `{"n":9}`) {
					t.Errorf("exactly one may stop: a=%s b=%s", x, y)
				}
			})
		}
	}
}

func TestFoldCommitsOnceAndLeavesOutWhatFails(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.put("lead.0", `{"n":100}`)
	reg := prometheus.NewRegistry()
	s := b.store(reg)
	bad := outcome.Permanentf(outcome.Malformed, "seven is not a number")
	results := s.Fold(t.Context(), 20, func(tx *state.Tx, i int) error {
		if err := add(tx, fmt.Sprintf("lead.%d", i%5), 1); err != nil {
			return err
		}
		switch i {
		case 7:
			return bad
		case 8:
			panic("eight")
		}
		return nil
	}, func(tx *state.Tx, i int, err error) error {
		return tx.Put(fmt.Sprintf("incident.%d", i), number{N: i, Note: string(outcome.Of(err).Reason)})
	})
	for i, err := range results {
		switch {
		case i == 7 && !errors.Is(err, bad):
			t.Errorf("decision 7: %v", err)
		case i == 8 && outcome.Of(err).Reason != outcome.Panic:
			t.Errorf("decision 8: %v", err)
		case i != 7 && i != 8 && err != nil:
			t.Errorf("decision %d: %v", i, err)
		}
	}
	for key, want := range map[string]string{
		"lead.0": `{"n":104}`, "lead.1": `{"n":4}`, "lead.2": `{"n":3}`, "lead.3": `{"n":3}`, "lead.4": `{"n":4}`,
		"incident.7": `{"n":7,"note":"malformed"}`, "incident.8": `{"n":8,"note":"panic"}`,
	} {
		if got := b.value(key); got != want {
			t.Errorf("%s: %s, want %s", key, got, want)
		}
	}
	if got := b.lastSequence(); got != 8 {
		t.Errorf("one message a record: last sequence %d, want 8", got)
	}
	if n := testutil.CollectAndCount(reg, "state_commits_total"); n != 1 {
		t.Errorf("%d forms of commit, want one batch", n)
	}
}

// More records than a batch may hold end in several commits, none lost.
func TestFoldLargerThanABatch(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.LazySync)
	s := b.store(nil)
	const n = 1500
	for i, err := range s.Fold(t.Context(), n, func(tx *state.Tx, i int) error {
		if _, _, err := state.Get[number](tx, fmt.Sprintf("contact.%d", i)); err != nil { // only read
			return err
		}
		return tx.Put(fmt.Sprintf("lead.%d", i), number{N: i})
	}, nil) {
		if err != nil {
			t.Fatalf("decision %d: %v", i, err)
		}
	}
	info, err := b.js.Stream(t.Context(), "KV_crm")
	if err != nil {
		t.Fatal(err)
	}
	if got := info.CachedInfo().State.NumSubjects; got != n {
		t.Errorf("%d records, want %d", got, n)
	}
}

// A seed is as good as a read: the commit is refused when it is out of date.
func TestSeeds(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.put("sms.welcome.1", `{"n":1}`)
	b.put("sms.welcome.1", `{"n":2}`)
	s := b.store(nil)
	results := s.Fold(t.Context(), 1, func(tx *state.Tx, _ int) error { return add(tx, "sms.welcome.1", 10) }, nil,
		state.Seed{Key: "sms.welcome.1", Revision: 1, Data: []byte(`{"n":1}`)})
	if results[0] != nil {
		t.Fatal(results[0])
	}
	if got := b.value("sms.welcome.1"); got != `{"n":12}` {
		t.Errorf("got %s, want the seed to have been replaced by what is stored", got)
	}
}

func TestKeysOutsideTheBucketAreRefused(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	for _, key := range []string{"", "lead.", ".lead", "lead..1", "lead.*", "lead.>", "lead.a b", "lead.é", "lead.\n1"} {
		err := s.Update(t.Context(), func(tx *state.Tx) error { return tx.Put(key, number{}) })
		if outcome.Of(err).Kind != outcome.KindPermanent {
			t.Errorf("key %q: %v", key, err)
		}
	}
}

func TestUnreadableRecordIsPermanentAndStaysAsItIs(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.put("lead.1", `{"n":"many"}`)
	err := b.store(nil).Update(t.Context(), func(tx *state.Tx) error { return add(tx, "lead.1", 1) })
	if outcome.Of(err).Kind != outcome.KindPermanent {
		t.Errorf("error %v", err)
	}
	if got := b.value("lead.1"); got != `{"n":"many"}` {
		t.Errorf("record %s", got)
	}
}

// An answer that was lost on the way must not count a change twice: the publish is
// sent again under the same id.
func TestLostAnswerIsNotASecondCommit(t *testing.T) {
	t.Parallel()
	b := open(t)
	proxy := newProxy(t, b.Nodes[0].URL())
	nc, err := nats.Connect(strings.Replace(b.URL("consumers"), strings.TrimPrefix(b.Nodes[0].URL(), "nats://"), proxy.addr, 1),
		nats.CustomInboxPrefix("_INBOX.consumers"),
		nats.MaxReconnects(-1), nats.ReconnectWait(5*time.Millisecond))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(nc.Close)
	js, err := jetstream.New(nc)
	if err != nil {
		t.Fatal(err)
	}
	s := state.New(js, nil)
	s.SetTry(300 * time.Millisecond)
	for i := range 12 {
		// Cut after the n-th answer from the server, so that every point of the
		// exchange is hit: reads, the batch's first answer, the commit's.
		proxy.cutAfter(i % 6)
		if err := s.Update(t.Context(), func(tx *state.Tx) error {
			if err := add(tx, "lead.1", 1); err != nil {
				return err
			}
			if i%2 == 0 {
				return nil
			}
			return add(tx, "lead.2", 1)
		}); err != nil {
			t.Fatal(err)
		}
	}
	if x, y := b.value("lead.1"), b.value("lead.2"); x != `{"n":12}` || y != `{"n":6}` {
		t.Errorf("lead.1 %s, lead.2 %s; want 12 and 6", x, y)
	}
}

// Batches that others opened and left behind fill the server's 50 places until they
// time out. A commit waits for a place; it neither fails nor gets lost.
func TestTooManyOpenBatchesAreWaitedFor(t *testing.T) {
	t.Parallel()
	b := open(t, natstest.LazySync)
	for i := range 50 {
		m := nats.NewMsg("$KV.crm.lead.abandoned")
		m.Data = []byte("{}")
		m.Header.Set("Nats-Batch-Id", fmt.Sprintf("left-behind-%d", i))
		m.Header.Set("Nats-Batch-Sequence", "1")
		if _, err := b.js.Conn().RequestMsg(m, 5*time.Second); err != nil {
			t.Fatal(err)
		}
	}
	reg := prometheus.NewRegistry()
	start := time.Now()
	if err := b.store(reg).Update(t.Context(), func(tx *state.Tx) error {
		if err := add(tx, "lead.1", 1); err != nil {
			return err
		}
		return add(tx, "lead.2", 1)
	}); err != nil {
		t.Fatal(err)
	}
	if x, y := b.value("lead.1"), b.value("lead.2"); x != `{"n":1}` || y != `{"n":1}` {
		t.Errorf("lead.1 %s, lead.2 %s", x, y)
	}
	if n := testutil.ToFloat64(gathered{reg, "state_retries_total"}); n == 0 {
		t.Errorf("no place was waited for, %v: the test does not fill them", time.Since(start))
	}
	if got := b.value("lead.abandoned"); got != "" {
		t.Errorf("a batch that was never committed left %s", got)
	}
}

// gathered is one metric of a registry, as testutil takes it.
type gathered struct {
	reg  *prometheus.Registry
	name string
}

func (g gathered) Describe(chan<- *prometheus.Desc) {}

func (g gathered) Collect(out chan<- prometheus.Metric) {
	families, err := g.reg.Gather()
	if err != nil {
		return
	}
	for _, f := range families {
		if f.GetName() == g.name {
			for _, m := range f.Metric {
				out <- prometheus.MustNewConstMetric(prometheus.NewDesc(g.name, "", nil, nil), prometheus.CounterValue, m.GetCounter().GetValue())
			}
		}
	}
}
