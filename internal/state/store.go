package state

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"strconv"
	"time"

	"github.com/nats-io/nats.go"
	"github.com/nats-io/nats.go/jetstream"
	"github.com/nats-io/nuid"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/synadia-io/orbit.go/jetstreamext"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

const (
	// maxBatch is the most messages that a commit may hold; the server takes 1000.
	maxBatch = 900
	// maxOpen bounds the batches that one store has open at a time. The server allows
	// 50 a stream, over all clients.
	maxOpen = 6
	// tryTimeout is how long one publish waits for its answer before it is asked again.
	tryTimeout = 3 * time.Second
	// maxKeysARead is how many keys one request reads; the server answers at most 1024.
	maxKeysARead = 512
	// conflictsBeforeHalving is how often a fold may lose the race for its records
	// before it is cut in half, so that contended decisions end up alone.
	conflictsBeforeHalving = 2
)

// A Store reads and commits the records of the crm bucket. It is safe for concurrent
// use.
type Store struct {
	js   jetstream.JetStream
	nc   *nats.Conn
	open chan struct{} // a place a batch under way
	try  time.Duration // how long one publish or read waits for its answer

	commits   *prometheus.CounterVec
	conflicts prometheus.Counter
	retries   prometheus.Counter
	written   prometheus.Counter
	folded    prometheus.Histogram
}

// New makes a store over a connection. Its metrics go to reg, which may be nil.
func New(js jetstream.JetStream, reg prometheus.Registerer) *Store {
	s := &Store{
		js: js, nc: js.Conn(), open: make(chan struct{}, maxOpen), try: tryTimeout,
		commits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "state_commits_total", Help: "Commits to the crm bucket, by form: single or batch."}, []string{"form"}),
		conflicts: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "state_conflicts_total", Help: "Commits refused because a record had changed meanwhile."}),
		retries: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "state_retries_total", Help: "Publishes sent again for want of an answer or of a free batch."}),
		written: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "state_records_written_total", Help: "Records written."}),
		folded: prometheus.NewHistogram(prometheus.HistogramOpts{
			Name: "state_decisions_per_commit", Help: "Decisions folded into one commit.",
			Buckets: prometheus.ExponentialBuckets(1, 2, 10)}),
	}
	if reg != nil {
		reg.MustRegister(s.commits, s.conflicts, s.retries, s.written, s.folded)
	}
	return s
}

// Update runs one decision and commits what it changed, all or nothing. nil: it is
// durable. The decision's own error comes back as it is, with nothing written. It
// runs again after a conflict, so it must have no effect but through its Tx. Update
// tries until ctx ends.
func (s *Store) Update(ctx context.Context, decide func(*Tx) error) error {
	for attempt := 0; ; attempt++ {
		tx := s.begin(ctx)
		tx.inline = true
		tx.begin()
		if err := decide(tx); err != nil {
			return err
		}
		if err := tx.progress(); err != nil {
			return err
		}
		again := tx.again
		tx.keep()
		err := s.commit(ctx, tx)
		switch {
		case err == nil && again:
			attempt = -1
			continue
		case !errors.Is(err, errConflict):
			return err
		}
		s.conflicts.Inc()
		if err := pause(ctx, attempt, 0); err != nil {
			return fmt.Errorf("committing after %d conflicts: %w", attempt+1, err)
		}
	}
}

// Seed tells Fold of a record that is known already, from the bucket's own stream.
type Seed struct {
	Key      string
	Revision uint64
	Data     []byte // empty: the key was deleted
}

// Fold runs the decisions 0 to n-1 over one transaction and commits their changes
// together, or in a few parts where they are too many. The result has an error a
// decision: nil says that its changes are durable. A decision that fails leaves
// nothing behind, except what failed writes in its place (or, after Keep, beside it);
// failed may be nil. Where the
// server refuses a commit for what is in it (a record that is too large, say), the
// decisions are committed in smaller parts, and one that is refused alone fails alone,
// permanently.
//
// Decisions may run several times and in any order, each on records that include
// the changes of those before it. A decision that panics fails, permanently.
func (s *Store) Fold(ctx context.Context, n int, decide func(tx *Tx, i int) error, failed func(tx *Tx, i int, err error) error, seeds ...Seed) []error {
	f := &fold{store: s, ctx: ctx, decide: decide, failed: failed, results: make([]error, n)}
	pending := make([]int, n)
	for i := range pending {
		pending[i] = i
	}
	for len(pending) > 0 {
		done, err := f.part(pending, seeds)
		if err != nil {
			for _, i := range pending {
				f.results[i] = err
			}
			break
		}
		pending = slices.DeleteFunc(pending, func(i int) bool { return done[i] })
	}
	return f.results
}

type fold struct {
	store   *Store
	ctx     context.Context
	decide  func(*Tx, int) error
	failed  func(*Tx, int, error) error
	results []error
	refused map[int]error // decisions whose commit the server refused, alone
	silent  map[int]bool  // those in whose place nothing can be written either
}

// part folds as many of the pending decisions as one commit takes, and says which.
func (f *fold) part(pending []int, seeds []Seed) (done map[int]bool, err error) {
	keys := map[string]bool{} // all that was read: one request fetches them again
	for attempt := 0; ; attempt++ {
		start := time.Now()
		tx := f.store.begin(f.ctx)
		if err := tx.load(slices.Collect(maps.Keys(keys))); err != nil {
			return nil, err
		}
		tx.seed(seeds)
		done, err := f.run(tx, pending)
		if err != nil {
			return nil, err
		}
		err = f.store.commit(f.ctx, tx)
		if err == nil {
			f.store.folded.Observe(float64(len(done)))
			return done, nil
		}
		for k := range tx.entries {
			keys[k] = true
		}
		if reason := refusal(err); reason != nil {
			pending = f.divide(pending, reason)
			continue
		}
		if !errors.Is(err, errConflict) {
			return nil, err
		}
		f.store.conflicts.Inc()
		if attempt+1 >= conflictsBeforeHalving && len(pending) > 1 {
			pending = pending[:(len(pending)+1)/2]
		}
		if err := pause(f.ctx, attempt, time.Since(start)); err != nil {
			return nil, fmt.Errorf("committing %d decisions after %d conflicts: %w", len(pending), attempt+1, err)
		}
	}
}

// divide says which decisions to try next after the server has refused a commit for what
// is in it: half of them, or a single one again, which then fails.
func (f *fold) divide(pending []int, reason error) []int {
	if len(pending) > 1 {
		return pending[:(len(pending)+1)/2]
	}
	i := pending[0]
	if f.refused == nil {
		f.refused, f.silent = map[int]error{}, map[int]bool{}
	}
	f.silent[i] = f.refused[i] != nil // what failed wrote in its place is refused too
	f.refused[i] = outcome.Permanent(outcome.Refused, reason)
	return pending
}

// run runs decisions until each has ended or the commit is full. Those that need
// records which are not here wait; what they all need comes in one round trip. A
// decision that is to run again has done nothing but a step, and is not among the done.
func (f *fold) run(tx *Tx, pending []int) (done map[int]bool, err error) {
	done = make(map[int]bool, len(pending))
	ran := 0 // decisions with a part in this commit
	for round := pending; len(round) > 0; {
		var waiting []int
		needed := map[string]bool{}
		for _, i := range round {
			ended, err := f.one(tx, i)
			if err != nil {
				return nil, err
			}
			if !ended {
				waiting = append(waiting, i)
				for _, k := range tx.unread {
					needed[k] = true
				}
				continue
			}
			if ran > 0 && tx.full() {
				tx.rollback() // the next commit begins with it
				return done, nil
			}
			ran++
			done[i] = !tx.again
		}
		if err := tx.load(slices.Collect(maps.Keys(needed))); err != nil {
			return nil, err
		}
		round = waiting
	}
	return done, nil
}

// one runs one decision; false where it has to wait for records.
func (f *fold) one(tx *Tx, i int) (ended bool, err error) {
	tx.begin()
	err = f.refused[i]
	if err == nil {
		err = guard(func() error { return f.decide(tx, i) })
	}
	if len(tx.unread) > 0 {
		tx.rollback()
		return false, nil
	}
	if err == nil {
		err = tx.progress()
	}
	f.results[i] = err
	if err == nil {
		tx.keep()
		return true, nil
	}
	var stands *kept
	if !errors.As(err, &stands) {
		tx.rollback()
	}
	if f.failed == nil || f.silent[i] {
		tx.keep()
		return true, nil
	}
	if err := f.failed(tx, i, err); err != nil {
		if len(tx.unread) > 0 {
			tx.rollback()
			return false, nil
		}
		return false, err
	}
	tx.keep()
	return true, nil
}

// guard turns a panic into a permanent error: one malformed event must not stop the
// process, and with it everybody else's.
func guard(decide func() error) (err error) {
	defer func() {
		if r := recover(); r != nil {
			err = outcome.Panicked(r)
		}
	}()
	return decide()
}

// Get reads one record outside of any transaction; false where there is none.
func (s *Store) Get(ctx context.Context, key string, into any) (bool, error) {
	if !validKey(key) {
		return false, outcome.Permanentf(outcome.Malformed, "not a key of the bucket: kind %q", kind(key))
	}
	found, err := s.fetch(ctx, []string{key})
	if err != nil {
		return false, err
	}
	r := found[key]
	if r.data == nil {
		return false, nil
	}
	if err := json.Unmarshal(r.data, into); err != nil {
		return false, fmt.Errorf("decoding a record of kind %q: %w", kind(key), err)
	}
	return true, nil
}

func (s *Store) begin(ctx context.Context) *Tx {
	return &Tx{ctx: ctx, store: s, entries: map[string]*entry{}}
}

// errConflict says that a record was no longer as it had been read.
var errConflict = errors.New("a record changed meanwhile")

// commit publishes what tx changed. nil: durable, or nothing to do. errConflict:
// nothing was written. Any other error: ctx ended, or the server can't store it.
func (s *Store) commit(ctx context.Context, tx *Tx) error {
	var changed, guards []string
	smallest := ""
	for k, e := range tx.entries {
		switch {
		case e.changed():
			changed = append(changed, k)
			if smallest == "" || len(e.current) < len(tx.entries[smallest].current) {
				smallest = k
			}
		case e.guarded:
			guards = append(guards, k)
		}
	}
	if len(changed) == 0 {
		return nil
	}
	slices.Sort(changed)
	slices.Sort(guards)
	msgs := make([]*nats.Msg, 0, len(changed)+len(guards))
	for _, k := range changed {
		e := tx.entries[k]
		m := message(k, e.current)
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(e.revision, 10))
		msgs = append(msgs, m)
	}
	// A record that was only read has no message of its own to carry the check. So a
	// changed record is written once more with the check in it: the bucket keeps one
	// revision a key, and the record that was only read is not touched.
	for _, k := range guards {
		m := message(smallest, tx.entries[smallest].current)
		m.Header.Set(jetstream.ExpectedLastSubjSeqHeader, strconv.FormatUint(tx.entries[k].revision, 10))
		m.Header.Set(jetstream.ExpectedLastSubjSeqSubjHeader, contracts.SubjectOfKey(k))
		msgs = append(msgs, m)
	}
	// One id a commit. When an answer is lost, the same publish is sent again, and the
	// server says whether the first one was stored.
	msgs[0].Header.Set(jetstream.MsgIDHeader, "commit:"+nuid.Next())

	for attempt := 0; ; attempt++ {
		err := s.publish(ctx, msgs)
		if err == nil {
			s.written.Add(float64(len(changed)))
			return nil
		}
		if errors.Is(err, errConflict) || !worthAnotherTry(err) {
			return err
		}
		s.retries.Inc()
		if ctxErr := pause(ctx, attempt, 0); ctxErr != nil {
			return fmt.Errorf("committing: %w (last answer: %w)", ctxErr, err)
		}
	}
}

// message is a revision of a key; nil is the marker of one that is deleted.
func message(key string, data []byte) *nats.Msg {
	m := nats.NewMsg(contracts.SubjectOfKey(key))
	m.Data = data
	if data == nil {
		m.Header.Set("KV-Operation", "DEL")
	}
	return m
}

// publish sends one commit. nil: stored, now or by an earlier try.
func (s *Store) publish(ctx context.Context, msgs []*nats.Msg) error {
	ctx, cancel := context.WithTimeout(ctx, s.try)
	defer cancel()
	var err error
	if len(msgs) == 1 {
		_, err = s.js.PublishMsg(ctx, msgs[0], jetstream.WithRetryAttempts(0))
		if err == nil {
			s.commits.WithLabelValues("single").Inc()
		}
	} else {
		select {
		case s.open <- struct{}{}:
			defer func() { <-s.open }()
		case <-ctx.Done():
			return ctx.Err()
		}
		_, err = jetstreamext.PublishMsgBatch(ctx, s.js, msgs, jetstreamext.BatchFlowControl{AckFirst: true, AckTimeout: s.try})
		if err == nil {
			s.commits.WithLabelValues("batch").Inc()
		}
	}
	switch code(err) {
	case jetstream.JSErrCodeStreamWrongLastSequence, jetstream.JSErrCodeStreamWrongLastSequenceConstant:
		return fmt.Errorf("%w: %w", errConflict, err)
	case codeDuplicateInBatch:
		return nil
	}
	return err
}

// Error codes of the server that nats.go does not name.
const (
	codeDuplicateInBatch   jetstream.ErrorCode = 10201 // the commit's id is stored already
	codeTooManyBatches     jetstream.ErrorCode = 10210
	codeBatchIncomplete    jetstream.ErrorCode = 10176 // too many open, or its first message was lost
	codeDuplicateInProcess jetstream.ErrorCode = 10158 // the same commit is being stored right now
)

func code(err error) jetstream.ErrorCode {
	if api := apiError(err); api != nil {
		return api.ErrorCode
	}
	return 0
}

// apiError is the server's answer behind an error; nil: there was none.
func apiError(err error) *jetstream.APIError {
	var api *jetstream.APIError
	if errors.As(err, &api) {
		return api
	}
	var withCode interface{ APIError() *jetstream.APIError }
	if errors.As(err, &withCode) {
		return withCode.APIError()
	}
	return nil
}

// refusal is the server's answer to a commit that it will never take for what is in it:
// a record, or a batch, that is too large. nil: err says something else.
func refusal(err error) error {
	api := apiError(err)
	switch {
	case errors.Is(err, nats.ErrMaxPayload):
	case api == nil, errors.Is(err, errConflict), worthAnotherTry(err):
		return nil
	case api.Code >= 500: // the server's own trouble, which passes
		return nil
	}
	return fmt.Errorf("the state can't be stored: %w", err)
}

// worthAnotherTry says whether the same publish may succeed in a moment: no answer
// came, or the server asks to come again.
func worthAnotherTry(err error) bool {
	switch code(err) {
	case 0: // no answer: timeout, no leader, no connection
		return !errors.Is(err, nats.ErrConnectionClosed) && !errors.Is(err, nats.ErrMaxPayload)
	case codeTooManyBatches, codeBatchIncomplete, codeDuplicateInProcess:
		return true
	}
	return false
}

// pause waits before the attempt after the given one, with full jitter: up to 4 ms, or
// as long as the attempt took, and up to twice as much with each further one. Folds
// that lose a race and start over at once, all together, would only meet again.
func pause(ctx context.Context, attempt int, took time.Duration) error {
	ceiling := min(500*time.Millisecond, max(4*time.Millisecond, took)<<min(attempt, 7))
	t := time.NewTimer(time.Millisecond + rand.N(ceiling))
	defer t.Stop()
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-t.C:
		return nil
	}
}
