package bus

import (
	"context"
	"errors"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// What an error means for the message behind it:
//
//	nil            ack
//	not yet        redelivered after the time it names, for as long as it takes
//	temporary      redelivered after a pause; the ceiling of the pause doubles with every
//	               failure, 1 s to 10 min, and the pause is drawn between zero and it
//	               (full jitter). After a day of that: as permanent
//	blocked        redelivered like temporary, and the loop pauses as a whole (see gate)
//	permanent      an incident.* record, then terminated; it stays in the stream
//
// max_deliver is -1, so the server never gives up without us.
const (
	lastPause = 10 * time.Minute
	// mostRemembered bounds the messages whose failures are counted.
	mostRemembered = 200_000
	// failuresADay is how many failures such pauses fill a day with: ten that grow, then
	// one every five minutes on average.
	failuresADay = 300
)

// final says whether a message ends here, with an incident.
func final(m contracts.Message, o *outcome.Error) bool {
	return o.Kind == outcome.KindPermanent || o.Kind == outcome.KindTemporary && m.Failures >= failuresADay-1
}

// retryAfter is how long a message waits for its next delivery. What failed waits the
// longer the oftener it failed; that it waited before, or was handed back by a process that
// ended, does not count.
func retryAfter(m contracts.Message, o *outcome.Error) time.Duration {
	switch o.Kind {
	case outcome.KindNotYet:
		return max(o.After, time.Millisecond)
	case outcome.KindTemporary:
		return o.After + outcome.Pause(m.Failures+1, lastPause)
	default:
		return o.After + outcome.Pause(m.Attempt, lastPause)
	}
}

// settle tells the server what became of a message. It is the only place that acks.
func (l *Loop) settle(ctx context.Context, d delivery, err error) {
	o := outcome.Of(err)
	l.remember(d.msg, err != nil && o.Kind == outcome.KindTemporary)
	var said error
	switch {
	case err == nil:
		l.done.WithLabelValues(l.name, "done", "").Inc()
		said = d.raw.Ack()
	case final(d.msg, o):
		// A fold has written the incident in its own commit; others have it written here.
		var r *recorded
		if !errors.As(err, &r) {
			if rerr := l.record(ctx, d.msg, o); rerr != nil {
				l.log.Error("incident not recorded, the message comes again", "message", d.msg, "reason", rerr.Error())
				said = l.handBack(d, retryAfter(d.msg, o))
				break
			}
		}
		l.log.Error("message given up, see the incident", "message", d.msg, "kind", o.Reason, "reason", err.Error())
		l.done.WithLabelValues(l.name, string(outcome.KindPermanent), string(o.Reason)).Inc()
		said = d.raw.TermWithReason(string(o.Reason))
	default:
		wait := retryAfter(d.msg, o)
		if o.Kind != outcome.KindNotYet || o.Err != nil {
			l.log.Warn("message comes again", "message", d.msg, "kind", o.Reason, "in", wait.String(), "reason", err.Error())
		}
		l.done.WithLabelValues(l.name, string(o.Kind), string(o.Reason)).Inc()
		said = l.handBack(d, wait)
	}
	if said != nil && !errors.Is(said, jetstream.ErrMsgAlreadyAckd) {
		// The server delivers it again after ack_wait; every effect stands that.
		l.log.Warn("acknowledgement not sent", "message", d.msg, "reason", said.Error())
	}
}

// remember counts the failures of a message that comes again, and forgets those of one that
// is done or waits. Deliveries don't tell: they count waits too.
func (l *Loop) remember(m contracts.Message, failed bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if !failed {
		delete(l.failures, m.Sequence)
		return
	}
	if len(l.failures) >= mostRemembered { // of messages that went to other processes since
		clear(l.failures)
	}
	l.failures[m.Sequence]++
}

// recorded marks an error whose incident is in the bucket already.
type recorded struct{ err error }

func (r *recorded) Error() string { return r.err.Error() }
func (r *recorded) Unwrap() error { return r.err }

// record writes the incident of a message that ends here.
func (l *Loop) record(ctx context.Context, m contracts.Message, o *outcome.Error) error {
	return l.store.Update(ctx, func(tx *state.Tx) error { return incident.Failed(tx, l.name, m, o) })
}
