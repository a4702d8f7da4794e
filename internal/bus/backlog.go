package bus

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
)

// backlogEvery is how often the server is asked what waits for the durables.
const backlogEvery = 5 * time.Second

// A Waiting names a durable whose backlog is measured.
type Waiting struct{ Stream, Durable string }

// A Backlog measures what waits for durables, whether anybody works on them or not. It is a
// prometheus.Collector. The age of the oldest message goes on growing while the server
// can't be asked; nats_connected says so.
type Backlog struct {
	js       jetstream.JetStream
	durables []Waiting

	mu    sync.Mutex
	known map[Waiting]waits

	pending, inHand, oldest, lag, incidents *prometheus.Desc
	open                                    int // incidents
}

// waits is what the server last said of a durable.
type waits struct {
	pending, inHand int
	oldest          time.Time // when the oldest message that is not done was stored; zero: there is none
}

// NewBacklog makes a Backlog; Watch fills it.
func NewBacklog(js jetstream.JetStream, durables []Waiting) *Backlog {
	desc := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc(name, help, labels, nil)
	}
	return &Backlog{js: js, durables: durables, known: map[Waiting]waits{},
		pending:   desc("consumer_pending_messages", "Messages that the durable has not been given yet.", "durable"),
		inHand:    desc("consumer_ack_pending_messages", "Messages that were delivered and are not done: in hand, or to come again.", "durable"),
		oldest:    desc("consumer_oldest_seconds", "Age of the oldest message that is not done; 0: all are.", "durable"),
		lag:       desc("sheets_lag_seconds", "How far the spreadsheet is behind: consumer_oldest_seconds of sheets."),
		incidents: desc("incidents_open", "Incidents that are open."),
	}
}

// Describe is prometheus.Collector's.
func (b *Backlog) Describe(c chan<- *prometheus.Desc) {
	for _, d := range []*prometheus.Desc{b.pending, b.inHand, b.oldest, b.lag, b.incidents} {
		c <- d
	}
}

// Collect is prometheus.Collector's.
func (b *Backlog) Collect(c chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		c <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	gauge(b.incidents, float64(b.open))
	for d, w := range b.known {
		age := 0.0
		if !w.oldest.IsZero() {
			age = max(0, time.Since(w.oldest).Seconds())
		}
		gauge(b.pending, float64(w.pending), d.Durable)
		gauge(b.inHand, float64(w.inHand), d.Durable)
		gauge(b.oldest, age, d.Durable)
		if d.Durable == contracts.Sheets {
			gauge(b.lag, age)
		}
	}
}

// Watch asks the server now and then, until ctx ends.
func (b *Backlog) Watch(ctx context.Context) {
	t := time.NewTicker(backlogEvery)
	defer t.Stop()
	for {
		b.ask(ctx)
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
	}
}

// ask keeps what it knew of what it gets no answer about.
func (b *Backlog) ask(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, backlogEvery)
	defer cancel()
	for _, d := range b.durables {
		w, err := b.waits(ctx, d)
		b.mu.Lock()
		switch {
		case err == nil:
			b.known[d] = w
		case errors.Is(err, jetstream.ErrConsumerNotFound):
			delete(b.known, d)
		}
		b.mu.Unlock()
	}
	records, err := Read(ctx, b.js, []string{contracts.KeyIncidentIndex})
	if err != nil {
		return
	}
	var index contracts.IncidentIndex
	for _, r := range records {
		_ = json.Unmarshal(r.Data, &index) // ours; what can't be read counts as none
	}
	b.mu.Lock()
	b.open = len(index.Open)
	b.mu.Unlock()
}

func (b *Backlog) waits(ctx context.Context, d Waiting) (waits, error) {
	c, err := b.js.Consumer(ctx, d.Stream, d.Durable)
	if err != nil {
		return waits{}, err
	}
	info := c.CachedInfo()
	w := waits{pending: int(min(info.NumPending, 1<<53)), inHand: info.NumAckPending}
	if w.pending == 0 && w.inHand == 0 {
		return w, nil
	}
	for _, subject := range Subjects(info.Config) {
		at, err := b.stored(ctx, d.Stream, info.AckFloor.Stream+1, subject)
		if err != nil {
			return waits{}, err
		}
		if !at.IsZero() && (w.oldest.IsZero() || at.Before(w.oldest)) {
			w.oldest = at
		}
	}
	return w, nil
}

// stored is when the first message of a subject from a sequence on was stored; zero:
// there is none. The consumers' rights allow a look at WEBHOOKS by its leader, and at the
// state directly.
func (b *Backlog) stored(ctx context.Context, stream string, seq uint64, subject string) (time.Time, error) {
	question, err := json.Marshal(map[string]any{"seq": seq, "next_by_subj": subject})
	if err != nil {
		return time.Time{}, err
	}
	if stream == contracts.StreamCRM {
		m, err := b.js.Conn().RequestWithContext(ctx, "$JS.API.DIRECT.GET."+stream, question)
		if err != nil {
			return time.Time{}, err
		}
		if m.Header.Get("Status") != "" { // 404: nothing there
			return time.Time{}, nil
		}
		return time.Parse(time.RFC3339Nano, m.Header.Get("Nats-Time-Stamp"))
	}
	m, err := b.js.Conn().RequestWithContext(ctx, "$JS.API.STREAM.MSG.GET."+stream, question)
	if err != nil {
		return time.Time{}, err
	}
	var answer struct {
		Message struct {
			Time time.Time `json:"time"`
		} `json:"message"`
	}
	if err := json.Unmarshal(m.Data, &answer); err != nil {
		return time.Time{}, fmt.Errorf("reading %s: %w", stream, err)
	}
	return answer.Message.Time, nil
}
