package sms

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/semaphore"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
	"leadpipe/internal/twilio"
)

// Options are what a sender needs. Store, Look, Twilio, one of From and Service, and Log
// are required.
type Options struct {
	Store     *state.Store
	Look      Look           // Store.Last
	Twilio    *twilio.Client // its timeout at most a third of Lease
	From      string         // sender: a number or an alphanumeric id
	Service   string         // sender: a messaging service, in place of From
	PublicURL string         // where delivery statuses are sent; empty: none are asked for
	Quiet     QuietHours     // of welcome texts only: an unpaid invoice can't wait

	// Lease is how long a claim holds. Default 30 s: three call timeouts, so that the
	// last call is over, and in Twilio's list, long before anybody looks there.
	Lease time.Duration
	// Parallel bounds the calls side by side. Default 64; Twilio queues what comes
	// faster than the sender may send.
	Parallel int
	// Old is the age from which a text is looked up at Twilio before its first call:
	// one that old may have gone out before the bucket was lost. Default 1 min.
	Old time.Duration
	// Hold is how long a text waits for an opt-out to be processed. Default 2 s: when it has
	// been, the text ends, and until then there is nothing to do.
	Hold time.Duration

	Now     func() time.Time // default time.Now; for expiry, leases and quiet hours
	Log     *slog.Logger
	Metrics prometheus.Registerer // may be nil

	gap   time.Duration      // MaxGap, but in the test that shows what it is for
	point func(point string) // told where the walk is, for tests that kill it there
}

// Timeout is how long one call to Twilio may take, for the client of Options.
const Timeout = 10 * time.Second

// clockSkew is how far Twilio's clock may be behind ours when a text is looked up.
const clockSkew = time.Minute

// A Sender sends texts. It is safe for concurrent use.
type Sender struct {
	o        Options
	messages *messages
	slots    *semaphore.Weighted
	proven   atomic.Bool  // the account was accepted, last we heard
	success  atomic.Int64 // when a text was last taken, in Unix nanoseconds
	ended    *prometheus.CounterVec
}

// New checks the options and makes a sender.
func New(o Options) (*Sender, error) {
	switch {
	case o.Store == nil, o.Look == nil, o.Twilio == nil, o.Log == nil:
		return nil, errors.New("sms: store, look, twilio or log is missing")
	case o.From == "" && o.Service == "":
		return nil, errors.New("sms: neither a sender nor a messaging service is given")
	}
	set(&o.Lease, 3*Timeout)
	set(&o.Old, time.Minute)
	set(&o.Hold, 2*time.Second)
	set(&o.gap, MaxGap)
	if o.Parallel <= 0 {
		o.Parallel = 64
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.point == nil {
		o.point = func(string) {}
	}
	if o.Lease < 3*o.Twilio.Timeout() {
		return nil, fmt.Errorf("sms: a lease of %s is shorter than three call timeouts of %s", o.Lease, o.Twilio.Timeout())
	}
	callback := ""
	if o.PublicURL != "" {
		callback = strings.TrimSuffix(o.PublicURL, "/") + "/api/webhooks/sms/status?sms="
	}
	s := &Sender{
		o:        o,
		messages: &messages{client: o.Twilio, from: o.From, service: o.Service, callback: callback, now: o.Now},
		slots:    semaphore.NewWeighted(int64(o.Parallel)),
		ended: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sms_ended_total", Help: "What claims of texts came to, by kind of text."}, []string{"kind", "result"}),
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(s.ended)
	}
	return s, nil
}

func set(d *time.Duration, value time.Duration) {
	if *d <= 0 {
		*d = value
	}
}

// A job is one text on its way through a Handle.
type job struct {
	index int // of its message
	msg   contracts.Message
	key   string

	was contracts.SMS // the record as the message has it

	// The claim, as its commit left it.
	plan    plan
	sms     contracts.SMS
	contact contracts.Contact
	latest  time.Time // the call begins until then, by the monotonic clock
	search  time.Time // look the text up at Twilio first, from this time on; zero: no need
	instead verdict   // what becomes of a text that the search does not find; "": a call

	answer answer
}

// A plan is what is to be done about a text.
type plan string

const (
	done plan = "done" // nothing
	wait plan = "wait" // somebody else has it, or it is not due
	call plan = "call"
)

func (j *job) digits() string { return strings.TrimPrefix(j.was.To, "+") }

// Handle takes changes of sms.* records. nil: nothing is left to do at this revision
// of the record; where something is left in the record, the revision that says so has
// a message of its own. So a text that could not be sent now is nil too, unless
// nothing can be sent at all (outcome.KindBlocked) or the state can't be written.
func (s *Sender) Handle(ctx context.Context, msgs []contracts.Message) []error {
	errs := make([]error, len(msgs))
	newest := make(map[string]int, len(msgs))
	for i, m := range msgs {
		if j, ok := newest[m.Subject]; !ok || msgs[j].Sequence < m.Sequence {
			newest[m.Subject] = i
		}
	}
	var jobs []*job
	for i, m := range msgs {
		if newest[m.Subject] != i || len(m.Data) == 0 {
			continue
		}
		j := &job{index: i, msg: m, key: contracts.KeyOfSubject(m.Subject)}
		if err := json.Unmarshal(m.Data, &j.was); err != nil {
			errs[i] = outcome.Permanentf(outcome.Malformed, "the record of a text can't be read")
			continue
		}
		switch p, after := s.due(j.was, m.Time); p {
		case call:
			jobs = append(jobs, j)
		case wait:
			errs[i] = outcome.NotYet(after)
		}
	}
	s.run(ctx, jobs, errs)
	return errs
}

// due says what a record asks for now. stored is when the bucket took this revision.
func (s *Sender) due(r contracts.SMS, stored time.Time) (plan, time.Duration) {
	from, open := s.begins(r, stored)
	if !open {
		return done, 0
	}
	if d := from.Sub(s.o.Now()); d > 0 {
		return wait, d + rand.N(20*time.Millisecond)
	}
	return call, 0
}

// begins says from when on something is to be done about a text, and whether anything is.
func (s *Sender) begins(r contracts.SMS, stored time.Time) (from time.Time, open bool) {
	switch r.Status {
	case contracts.SMSQueued:
		from = r.NotBefore
		if r.Kind == contracts.SMSWelcome {
			now := s.o.Now()
			if quiet := s.o.Quiet.Until(now); quiet.After(now) && quiet.After(from) {
				from = quiet
			}
		}
		if x := s.expiry(r, from); !x.IsZero() && x.Before(from) {
			from = x // no use in waiting longer
		}
		return from, true
	case contracts.SMSSending:
		from = r.LeaseUntil
		// The server's clock has a say too, lest one that is ahead ends leases early.
		if l := stored.Add(s.o.Lease); l.After(from) {
			from = l
		}
		return from, true
	default:
		return time.Time{}, false
	}
}

// expiry is when a text becomes too old, as seen at a time. Quiet hours do not age a
// welcome: one of Friday evening goes out on Monday morning.
func (s *Sender) expiry(r contracts.SMS, at time.Time) time.Time {
	if r.ExpiresAt.IsZero() || r.Kind != contracts.SMSWelcome {
		return r.ExpiresAt
	}
	return r.ExpiresAt.Add(s.o.Quiet.Between(r.QueuedAt, at))
}

// run claims, calls and records. Claims and results are committed as many at a time as
// there are; a slow call holds back nobody's result.
func (s *Sender) run(ctx context.Context, jobs []*job, errs []error) {
	if len(jobs) == 0 {
		return
	}
	results := make(chan *job, len(jobs))
	recorded := make(chan struct{})
	go func() {
		defer close(recorded)
		s.record(ctx, results, errs)
	}()
	var stopped atomic.Pointer[error] // why no further text is begun
	var calls sync.WaitGroup
	for len(jobs) > 0 && stopped.Load() == nil {
		n := min(len(jobs), max(1, s.o.Parallel/4)) // some free slots, not one: commits of many
		if !s.proven.Load() {
			if err := s.prove(ctx, jobs[0]); err != nil {
				stopped.Store(&err)
				break
			}
			n = 1
		}
		if err := s.slots.Acquire(ctx, int64(n)); err != nil {
			break
		}
		part := jobs[:n]
		jobs = jobs[n:]
		s.claim(ctx, part, errs)
		for _, j := range part {
			if j.plan != call {
				s.slots.Release(1)
				continue
			}
			calls.Go(func() {
				defer s.slots.Release(1)
				j.answer = s.carry(ctx, j)
				if err := j.answer.err; outcome.Of(err).Kind == outcome.KindBlocked {
					stopped.Store(&err)
				}
				s.o.point("answered")
				results <- j
			})
		}
		if !s.proven.Load() {
			calls.Wait()
			s.proven.Store(stopped.Load() == nil)
		}
	}
	calls.Wait()
	if stopped.Load() != nil {
		s.proven.Store(false)
	}
	close(results)
	<-recorded
	for _, j := range jobs { // not begun
		errs[j.index] = outcome.NotYet(time.Millisecond)
		if err := stopped.Load(); err != nil {
			errs[j.index] = *err
		}
	}
}

// prove asks Twilio for something harmless after a refusal, and at the start: while our
// account is at fault no text is claimed, and one question is asked and not many.
func (s *Sender) prove(ctx context.Context, j *job) error {
	_, _, a := s.messages.list(ctx, j.was.To, "", 0)
	if a.verdict == refused || a.verdict == later {
		return a.err
	}
	return nil // a list that can't be read for another reason says nothing of the account
}

// carry does what a claim is for.
func (s *Sender) carry(ctx context.Context, j *job) answer {
	s.o.point("claimed")
	if !j.search.IsZero() {
		news, found, err := s.messages.find(ctx, j.sms, j.search.Add(-clockSkew), func(sid string) (bool, error) { return s.taken(ctx, sid, j.key) })
		switch {
		case err != nil:
			return answer{verdict: unknown, err: err}
		case found:
			return answer{verdict: sent, news: news, found: true}
		case j.instead != "":
			return answer{verdict: j.instead}
		}
	}
	a := s.messages.send(ctx, j.sms, s.gate(j))
	switch {
	case a.verdict == sent:
		s.success.Store(time.Now().UnixNano())
	case a.perhaps && time.Since(time.Unix(0, s.success.Load())) < othersGoThrough:
		// It is not the sender: others go through.
		a = answer{verdict: never, code: a.code, err: outcome.Permanent(outcome.Refused, errors.New(a.err.Error()))}
	}
	return a
}

// othersGoThrough is how long after a text was taken a refusal of the sender is taken to
// be about the recipient.
const othersGoThrough = 10 * time.Minute

// taken says whether a text of Twilio's belongs to another record than key.
func (s *Sender) taken(ctx context.Context, sid, key string) (bool, error) {
	var x contracts.TextIndex
	found, err := s.o.Store.Get(ctx, contracts.KeyTextIndex(sid), &x)
	if err != nil {
		return false, outcome.Temporary(outcome.Unavailable, err)
	}
	return found && x.Key != key, nil
}
