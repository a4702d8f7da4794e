package sheets

import (
	"context"
	"encoding/json"
	"fmt"
	"math"
	"runtime"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/sandbox/google"
)

// BenchmarkSheet measures what the spreadsheet of a business costs at 1,000, 10,000 and
// 100,000 leads, by the real clock, under Google's real quota, against a stand-in that
// takes as long as Google does: one changed row, one new row, an audit, a rebuild from
// nothing, with a new lead every second during these two, and what bounds the slices of an
// audit, for which a lead has to wait. Memory is what the heap grows
// by, the growth of the stand-in and its answers included.
func BenchmarkSheet(b *testing.B) {
	for _, n := range []int{1_000, 10_000, 100_000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			for b.Loop() {
				benchSheet(b, n)
			}
		})
	}
}

func benchSheet(b *testing.B, n int) {
	r := newRig(b)
	s, w := dial(b, r, google.Options{Spreadsheets: []string{"sheet1"}, Latency: func(method string) time.Duration {
		if strings.HasPrefix(method, "values.batchUpdate") {
			return 400 * time.Millisecond
		}
		return 250 * time.Millisecond
	}})
	r.fill(b, 0, n)
	calls := func() int { st := s.Stats(); return st.Reads + st.Writes }
	memory := watchHeap()
	next := n
	type measured struct {
		took  time.Duration
		calls int
	}
	// timed does something while a lead a second arrives, for at least half a minute.
	var waits []time.Duration
	timed := func(do func() error) measured {
		l := newLoad(b, r, w, &next)
		began, before := time.Now(), calls()
		if err := do(); err != nil {
			b.Fatal(err)
		}
		m := measured{time.Since(began), calls() - before}
		if rest := 30*time.Second - m.took; rest > 0 {
			time.Sleep(rest)
		}
		waits = append(waits, l.end()...)
		return m
	}
	audit := func() error {
		for { // as the program does: what is not finished goes on with the next
			if _, err := w.Audit(b.Context()); err == nil {
				return nil
			} else if b.Context().Err() != nil {
				return err
			}
		}
	}
	rebuild := timed(audit)
	checked := timed(audit)
	time.Sleep(30 * time.Second) // so that quota is there again
	handle := func(records map[string]any) measured {
		began, before := time.Now(), calls()
		r.put(b, records)
		var keys []string
		for k := range records {
			keys = append(keys, k)
		}
		msgs, err := bus.Read(b.Context(), r.js, keys)
		if err != nil {
			b.Fatal(err)
		}
		for _, err := range w.Handle(b.Context(), msgs) {
			if err != nil {
				b.Fatal(err)
			}
		}
		return measured{time.Since(began), calls() - before}
	}
	one := handle(changed(n / 2))
	added := handle(leads(next, next+1))
	peak := memory()
	st := s.Stats()
	if st.QuotaViolations > 0 {
		b.Fatalf("%d calls beyond the quota", st.QuotaViolations)
	}
	if got, want := len(s.Rows("Leads")), next+2; got != want {
		b.Fatalf("%d rows, want %d", got, want)
	}
	slices.Sort(waits)
	b.ReportMetric(one.took.Seconds(), "changed-s")
	b.ReportMetric(float64(one.calls), "changed-calls")
	b.ReportMetric(added.took.Seconds(), "new-s")
	b.ReportMetric(float64(added.calls), "new-calls")
	b.ReportMetric(checked.took.Seconds(), "audit-s")
	b.ReportMetric(float64(checked.calls), "audit-calls")
	b.ReportMetric(rebuild.took.Seconds(), "rebuild-s")
	b.ReportMetric(float64(rebuild.calls), "rebuild-calls")
	b.ReportMetric(longest(b, w.slices), "slices-below-s")
	b.ReportMetric(waits[len(waits)*99/100].Seconds(), "lead-p99-s")
	b.ReportMetric(float64(peak)/1e6, "MB")
	b.ReportMetric(float64(st.QuotaViolations), "quota-violations")
}

// longest is the bound of a histogram that all it has seen is below.
func longest(b *testing.B, h prometheus.Histogram) float64 {
	var m dto.Metric
	if err := h.Write(&m); err != nil {
		b.Fatal(err)
	}
	for _, k := range m.Histogram.Bucket {
		if k.GetCumulativeCount() == m.Histogram.GetSampleCount() {
			return k.GetUpperBound()
		}
	}
	return math.Inf(1)
}

// fill puts many leads into the bucket at once.
func (r *rig) fill(tb testing.TB, from, to int) {
	tb.Helper()
	for n := from; n < to; n++ {
		data, err := json.Marshal(lead(n))
		if err != nil {
			tb.Fatal(err)
		}
		if _, err := r.js.PublishAsync(contracts.SubjectOfKey(contracts.KeyLead(lead(n).ID)), data, jetstream.WithStallWait(10*time.Second)); err != nil {
			tb.Fatal(err)
		}
	}
	<-r.js.PublishAsyncComplete()
}

// watchHeap gives a function that says how far the heap has grown at most since.
func watchHeap() func() uint64 {
	var m runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&m)
	base, peak := m.HeapInuse, m.HeapInuse
	stop, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		t := time.NewTicker(100 * time.Millisecond)
		defer t.Stop()
		for {
			select {
			case <-stop:
				return
			case <-t.C:
				runtime.ReadMemStats(&m)
				peak = max(peak, m.HeapInuse)
			}
		}
	}()
	return func() uint64 {
		close(stop)
		<-done
		return peak - base
	}
}

// A load is a lead a second, handled as the durable's loop does it: what came is gathered
// for a second, or until there is quota, and what failed comes again.
type load struct {
	stop  chan struct{}
	done  sync.WaitGroup
	mu    sync.Mutex
	waits []time.Duration
	born  map[string]time.Time // of those that wait, by key
}

func newLoad(b *testing.B, r *rig, w *Writer, next *int) *load {
	l := &load{stop: make(chan struct{}), born: map[string]time.Time{}}
	ctx := context.WithoutCancel(b.Context())
	ended := false
	l.done.Go(func() {
		t := time.NewTicker(time.Second)
		defer t.Stop()
		for {
			select {
			case <-l.stop:
				l.mu.Lock()
				ended = true
				l.mu.Unlock()
				return
			case <-t.C:
			}
			at := time.Now()
			r.fill(b, *next, *next+1)
			l.mu.Lock()
			l.born[contracts.KeyLead(lead(*next).ID)] = at
			l.mu.Unlock()
			*next++
		}
	})
	l.done.Go(func() {
		for {
			time.Sleep(max(time.Second, w.Wait()))
			l.mu.Lock()
			var keys []string
			for k := range l.born {
				keys = append(keys, k)
			}
			over := ended && len(keys) == 0
			l.mu.Unlock()
			if over {
				return
			}
			if len(keys) == 0 {
				continue
			}
			msgs, err := bus.Read(ctx, r.js, keys)
			if err != nil {
				b.Error(err)
				return
			}
			slices.SortFunc(msgs, func(a, b contracts.Message) int { return int(a.Sequence) - int(b.Sequence) })
			errs := w.Handle(ctx, msgs)
			l.mu.Lock()
			for i, m := range msgs {
				if key := contracts.KeyOfSubject(m.Subject); errs[i] == nil {
					l.waits = append(l.waits, time.Since(l.born[key]))
					delete(l.born, key)
				} else {
					b.Logf("%s: %v", key, errs[i])
				}
			}
			l.mu.Unlock()
		}
	})
	return l
}

// end waits for the last lead, and says how long each took to its row.
func (l *load) end() []time.Duration {
	close(l.stop)
	l.done.Wait()
	return l.waits
}
