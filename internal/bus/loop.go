package bus

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"slices"
	"sync"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// A Handler is given messages and returns one error for each; nil says that the
// effect is durable and the message done. See package outcome for the others.
type Handler func(ctx context.Context, msgs []contracts.Message) []error

const (
	// drainTime is how long work in hand may take after the stop. The program has 20 s.
	drainTime = 15 * time.Second
	// pullExpiry renews the request for messages. A drain has to wait for the last one,
	// and an idle writer that did not renew it within 30 s would lose its pin.
	pullExpiry = time.Second
	// pullPause is between two requests when the server does not answer.
	pullPause = 250 * time.Millisecond
)

// Options describe one durable's loop.
type Options struct {
	Stream  string
	Durable string
	Handle  Handler
	Max     int                  // messages at a time; as many as are waiting, up to this
	Gather  time.Duration        // least time between two batches of a worker, to gather more; see gather
	Wait    func() time.Duration // how long the handler would wait for its provider's quota; more is gathered meanwhile. nil: never
	Workers int                  // handlers side by side; 1 unless the order of effects allows more
	Overdue time.Duration        // how late what was handed back may come again; 0: DefaultOverdue
	Group   string               // priority group of a durable with one active client
	Store   *state.Store         // where incidents are recorded
	Log     *slog.Logger
	Metrics *Metrics
}

// Metrics count what loops do; one set serves all loops of a process.
type Metrics struct {
	done  *prometheus.CounterVec
	batch *prometheus.HistogramVec
	took  *prometheus.HistogramVec
	age   *prometheus.HistogramVec
}

// NewMetrics registers the metrics; reg may be nil.
func NewMetrics(reg prometheus.Registerer) *Metrics {
	m := &Metrics{
		done: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "consumer_messages_total", Help: "Messages settled, by durable, outcome and reason."}, []string{"durable", "outcome", "reason"}),
		batch: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "consumer_batch_messages", Help: "Messages handled at a time.", Buckets: prometheus.ExponentialBuckets(1, 2, 12)}, []string{"durable"}),
		took: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "consumer_handle_seconds", Help: "Time to handle a batch.", Buckets: prometheus.ExponentialBuckets(0.001, 2, 16)}, []string{"durable"}),
		age: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "consumer_message_age_seconds", Help: "From the stream's time of a message until it is done.", Buckets: prometheus.ExponentialBuckets(0.005, 2, 20)}, []string{"durable"}),
	}
	if reg != nil {
		reg.MustRegister(m.done, m.batch, m.took, m.age)
	}
	return m
}

// A Loop fetches a durable's messages, has them handled and settles them.
type Loop struct {
	o     Options
	name  string
	js    jetstream.JetStream
	store *state.Store
	log   *slog.Logger
	done  *prometheus.CounterVec

	queue chan delivery

	mu       sync.Mutex
	held     map[jetstream.Msg]time.Time // fetched and not settled, with the time of the last sign of life
	failures map[uint64]int              // of messages that come again, by sequence
	owed     map[uint64]time.Time        // when what was handed back is due to come again, by sequence

	trying sync.Mutex // held by the worker that handles, while the gate is closed
	gateMu sync.Mutex
	gate   gate
}

// A delivery is a message and the handle to settle it by.
type delivery struct {
	raw jetstream.Msg
	msg contracts.Message
}

// NewLoop checks the options and makes a loop.
func NewLoop(js jetstream.JetStream, o Options) (*Loop, error) {
	if o.Stream == "" || o.Durable == "" || o.Handle == nil || o.Store == nil || o.Log == nil || o.Metrics == nil {
		return nil, fmt.Errorf("loop of %q: an option is missing", o.Durable)
	}
	o.Max = max(1, o.Max)
	if o.Overdue == 0 {
		o.Overdue = DefaultOverdue
	}
	o.Workers = max(1, o.Workers)
	for _, r := range outcome.Reasons() { // of a counter that begins at its first event Prometheus sees no increase
		o.Metrics.done.WithLabelValues(o.Durable, string(outcome.KindBlocked), string(r))
	}
	log := o.Log.With("durable", o.Durable)
	return &Loop{
		o: o, name: o.Durable, js: js, store: o.Store, log: log, done: o.Metrics.done,
		queue: make(chan delivery, max(o.Max, o.Workers)), held: map[jetstream.Msg]time.Time{}, failures: map[uint64]int{}, owed: map[uint64]time.Time{}, gate: gate{log: log},
	}, nil
}

// Run handles messages until ctx ends, then drains: nothing new is fetched, work in
// hand is finished, the rest handed back. nil after a drain; an error when the
// durable is gone or the connection closed, which should end the program.
func (l *Loop) Run(ctx context.Context) error {
	consumer, err := l.find(ctx)
	if err != nil {
		if ctx.Err() != nil {
			return nil
		}
		return fmt.Errorf("durable %s of %s: %w", l.o.Durable, l.o.Stream, err)
	}
	info := consumer.CachedInfo()
	ackWait := info.Config.AckWait

	// Work goes on for a while after ctx has ended.
	work, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(drainTime, cancel) })
	defer stop()

	var workers, alive sync.WaitGroup
	for range l.o.Workers {
		workers.Go(func() { l.work(ctx, work) })
	}
	beat := make(chan struct{})
	alive.Go(func() { l.heartbeats(beat, ackWait/3) })
	watch, unwatch := context.WithCancel(ctx)
	defer unwatch()
	if l.o.Group == "" { // the one writer of a group looks at the bucket as a whole by itself
		alive.Go(func() { l.followLeader(watch, work, info) })
		alive.Go(func() { l.followOverdue(watch, work) })
	}

	err = l.fetch(ctx, consumer)
	close(l.queue)
	workers.Wait()
	close(beat)
	unwatch()
	alive.Wait()
	return err
}

// find looks the durable up. A server that starts, or a cluster that has yet to choose who
// leads it, loses the question or can't answer: it is asked again, until ctx ends.
func (l *Loop) find(ctx context.Context) (jetstream.Consumer, error) {
	for said := false; ; {
		consumer, err := l.js.Consumer(ctx, l.o.Stream, l.o.Durable) // in 5 s, the client's default
		var api *jetstream.APIError
		if err == nil || ctx.Err() != nil || errors.Is(err, nats.ErrConnectionClosed) || errors.As(err, &api) && api.Code < 500 {
			return consumer, err
		}
		if !said {
			l.log.Warn("waiting for the durable", "reason", err.Error())
			said = true
		}
		select {
		case <-ctx.Done():
		case <-time.After(pullPause):
		}
	}
}

// fetch asks for messages and queues them, until ctx ends. It asks for as many at a time as
// the queue holds, and only after the last of them is queued: an iterator that asks ahead (Messages, Consume)
// gives up on a reader that is busy for some seconds, asks once more, and then drops what
// it has no room for, which comes again only after ack_wait.
func (l *Loop) fetch(ctx context.Context, consumer jetstream.Consumer) error {
	// No limit by bytes: on a cluster the server (2.15) then says that the request is
	// complete before the messages themselves arrive, and the client stops listening.
	// So a loop holds at most twice what its queue does, beside what is being handled.
	pull := []jetstream.FetchOpt{jetstream.FetchMaxWait(pullExpiry)}
	if l.o.Group != "" {
		pull = append(pull, jetstream.FetchPriorityGroup(l.o.Group))
	}
	for ctx.Err() == nil {
		batch, err := consumer.Fetch(cap(l.queue), pull...)
		if err == nil {
			for raw := range batch.Messages() {
				l.accept(ctx, raw)
			}
			err = batch.Error()
		}
		if err == nil || ctx.Err() != nil {
			continue
		}
		if errors.Is(err, jetstream.ErrConsumerDeleted) || errors.Is(err, nats.ErrConnectionClosed) || l.gone(ctx, err) {
			return fmt.Errorf("durable %s of %s: %w", l.o.Durable, l.o.Stream, err)
		}
		// No leader, no connection, a pin that went elsewhere: all pass.
		l.log.Debug("asking for messages again", "reason", err.Error())
		select {
		case <-ctx.Done():
		case <-time.After(pullPause):
		}
	}
	return nil
}

// gone says whether the durable no longer exists, for an answer that nobody listens.
func (l *Loop) gone(ctx context.Context, err error) bool {
	if !errors.Is(err, nats.ErrNoResponders) {
		return false
	}
	_, err = l.js.Consumer(ctx, l.o.Stream, l.o.Durable)
	return errors.Is(err, jetstream.ErrConsumerNotFound) || errors.Is(err, jetstream.ErrStreamNotFound)
}

func (l *Loop) accept(ctx context.Context, raw jetstream.Msg) {
	if ctx.Err() != nil { // draining: what was on its way goes to somebody else
		_ = raw.NakWithDelay(time.Millisecond)
		return
	}
	msg, err := received(raw)
	if err != nil { // not a JetStream message: nothing can be settled
		l.log.Error("message without metadata ignored", "reason", err.Error())
		return
	}
	l.mu.Lock()
	l.held[raw] = time.Now()
	msg.Failures = l.failures[msg.Sequence]
	delete(l.owed, msg.Sequence)
	l.mu.Unlock()
	l.queue <- delivery{raw, msg}
}

// received copies a message out of NATS's types.
func received(raw jetstream.Msg) (contracts.Message, error) {
	meta, err := raw.Metadata()
	if err != nil {
		return contracts.Message{}, err
	}
	m := contracts.Message{
		Stream: meta.Stream, Subject: raw.Subject(), Data: raw.Data(),
		Sequence: meta.Sequence.Stream, Time: meta.Timestamp.UTC(), Attempt: int(meta.NumDelivered),
		Header: make(map[string]string, len(raw.Headers())),
	}
	for k := range raw.Headers() {
		m.Header[k] = raw.Headers().Get(k)
	}
	m.ID = m.Header[jetstream.MsgIDHeader]
	if op := m.Header["KV-Operation"]; op == "DEL" || op == "PURGE" {
		m.Data = nil // a key that was deleted has no record
	}
	return m, nil
}

// work handles batches until the queue is closed and empty.
func (l *Loop) work(ctx, work context.Context) {
	var ended time.Time // of the batch before
	for {
		batch, last := l.gather(ctx, ended)
		if len(batch) > 0 {
			l.handle(ctx, work, batch)
		}
		ended = time.Now()
		if last {
			return
		}
	}
}

// gather waits for a message, then takes what else is there, up to Max. So a batch is
// one message while little happens and hundreds under load. With Gather, a batch after a
// quiet time waits for a tenth of it only, for what belongs together to come together. With
// Wait, what comes while the handler could not go on anyhow is in the same batch, and not in
// the one after.
func (l *Loop) gather(ctx context.Context, ended time.Time) (batch []delivery, last bool) {
	first, ok := <-l.queue
	if !ok {
		return nil, true
	}
	batch = append(batch, first)
	most := l.o.Max
	if l.closed() > 0 {
		most = 1
	}
	var enough <-chan time.Time
	if wait := l.wait(ended); wait > 0 && ctx.Err() == nil {
		t := time.NewTimer(wait)
		defer t.Stop()
		enough = t.C
	}
	for len(batch) < most {
		select {
		case d, ok := <-l.queue:
			if !ok {
				return batch, true
			}
			batch = append(batch, d)
			continue
		default:
		}
		if enough == nil {
			break
		}
		select {
		case d, ok := <-l.queue:
			if !ok {
				return batch, true
			}
			batch = append(batch, d)
		case <-enough:
			enough = nil
		case <-ctx.Done():
			enough = nil
		}
	}
	return batch, false
}

// wait is how long a batch waits for more, when the one before ended at a time.
func (l *Loop) wait(ended time.Time) (wait time.Duration) {
	if l.o.Gather > 0 {
		wait = max(l.o.Gather/10, l.o.Gather-time.Since(ended))
	}
	if l.o.Wait != nil {
		wait = max(wait, l.o.Wait())
	}
	return wait
}

// closed is how long the gate asks to wait before the next try; 0: it is open.
func (l *Loop) closed() time.Duration {
	l.gateMu.Lock()
	defer l.gateMu.Unlock()
	return l.gate.pause
}

// handle has a batch handled and settles it.
func (l *Loop) handle(ctx, work context.Context, batch []delivery) {
	if wait := l.closed(); wait > 0 {
		l.trying.Lock()
		defer l.trying.Unlock()
		t := time.NewTimer(wait)
		defer t.Stop()
		select {
		case <-t.C:
		case <-ctx.Done():
			for _, d := range batch {
				l.forget(d)
				_ = d.raw.NakWithDelay(time.Millisecond)
			}
			return
		}
	}
	msgs := make([]contracts.Message, len(batch))
	for i, d := range batch {
		msgs[i] = d.msg
	}
	start := time.Now()
	errs := l.guarded(work, msgs)
	l.o.Metrics.took.WithLabelValues(l.name).Observe(time.Since(start).Seconds())
	l.o.Metrics.batch.WithLabelValues(l.name).Observe(float64(len(batch)))
	l.judge(work, msgs, errs)
	for i, d := range batch {
		l.forget(d)
		l.settle(work, d, errs[i])
		if errs[i] == nil {
			l.o.Metrics.age.WithLabelValues(l.name).Observe(time.Since(d.msg.Time).Seconds())
		}
	}
}

// judge opens or closes the gate by what a batch met, and closes the incidents that it
// has mended.
func (l *Loop) judge(ctx context.Context, msgs []contracts.Message, errs []error) {
	succeeded := slices.Contains(errs, nil)
	refused := slices.IndexFunc(errs, func(err error) bool { return err != nil && outcome.Of(err).Kind == outcome.KindBlocked })
	l.gateMu.Lock()
	switch {
	case refused >= 0:
		l.blocked(ctx, msgs[refused], outcome.Of(errs[refused]))
	case succeeded:
		l.gate.pause = 0
	}
	l.gateMu.Unlock()
	if !succeeded {
		return
	}
	if err := l.mend(ctx, msgs, errs, refused < 0); err != nil {
		l.log.Warn("open incidents stay as they are", "reason", err.Error())
	}
}

// guarded calls the handler. A panic, or a wrong number of answers, is a bug of ours
// that must not take messages with it: they come again.
func (l *Loop) guarded(ctx context.Context, msgs []contracts.Message) (errs []error) {
	all := func(err error) []error {
		errs := make([]error, len(msgs))
		for i := range errs {
			errs[i] = err
		}
		return errs
	}
	defer func() {
		if r := recover(); r != nil {
			err := outcome.Panicked(r)
			if len(msgs) > 1 { // one of them is to blame; alone, each will tell
				err = outcome.Temporary(outcome.Panic, errors.New(err.Error()))
			}
			errs = all(err)
		}
	}()
	errs = l.o.Handle(ctx, msgs)
	if len(errs) != len(msgs) {
		return all(fmt.Errorf("handler answered %d of %d messages", len(errs), len(msgs)))
	}
	return errs
}

func (l *Loop) forget(d delivery) {
	l.mu.Lock()
	delete(l.held, d.raw)
	l.mu.Unlock()
}

// heartbeats tells the server that messages in hand are being worked on, before it
// gives them to somebody else.
func (l *Loop) heartbeats(stop <-chan struct{}, every time.Duration) {
	t := time.NewTicker(max(every/4, time.Millisecond))
	defer t.Stop()
	for {
		select {
		case <-stop:
			return
		case <-t.C:
		}
		var due []jetstream.Msg
		l.mu.Lock()
		for raw, seen := range l.held {
			if time.Since(seen) >= every {
				due = append(due, raw)
				l.held[raw] = time.Now()
			}
		}
		l.mu.Unlock()
		for _, raw := range due {
			_ = raw.InProgress() // settled meanwhile, or the connection is down: both mend themselves
		}
	}
}
