package bus

import (
	"context"
	"errors"
	"slices"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/outcome"
)

// What is handed back comes again when its pause is over, to this process or to another.
// A single server that was stopped and went on was seen to lose such a message (2.15,
// decision 0008). So a loop remembers what it handed back, and what does not come again to
// it is handled once more beside the durable. Another process may have had it meanwhile:
// what is done changes nothing then.

const (
	// DefaultOverdue is how long after it was due a message is missed: twice ack_wait.
	DefaultOverdue = time.Minute
	// overdueEvery is how often a loop looks for what is missing.
	overdueEvery = 2 * time.Second
	// mostOverdue bounds how many are handled each time.
	mostOverdue = 64
)

// handBack has the server deliver a message again after a while.
func (l *Loop) handBack(d delivery, wait time.Duration) error {
	l.owes(d.msg.Sequence, wait)
	return d.raw.NakWithDelay(wait)
}

// owes notes when a message is due to come again.
func (l *Loop) owes(sequence uint64, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.owed) < mostRemembered {
		l.owed[sequence] = time.Now().Add(wait)
	}
}

// overdue takes out of what was handed back what should have come again by then.
func (l *Loop) overdue(by time.Time) []uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	var late []uint64
	for sequence, due := range l.owed {
		if due.Before(by) {
			late = append(late, sequence)
		}
	}
	slices.Sort(late)
	late = late[:min(len(late), mostOverdue)]
	for _, sequence := range late {
		delete(l.owed, sequence)
	}
	return late
}

// followOverdue looks for what was handed back and is missing, until ctx ends; what it
// handles then has until work ends.
func (l *Loop) followOverdue(ctx, work context.Context) {
	t := time.NewTicker(overdueEvery)
	defer t.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-t.C:
		}
		if l.closed() > 0 { // the provider takes nothing
			continue
		}
		for _, sequence := range l.overdue(time.Now().Add(-l.o.Overdue)) {
			l.handleOverdue(ctx, work, sequence)
		}
	}
}

// handleOverdue handles a message beside the durable. What fails is due again later.
func (l *Loop) handleOverdue(ctx, work context.Context, sequence uint64) {
	var m contracts.Message
	// It may be gone from the stream: a webhook by age, a record by a newer revision.
	err := Messages(ctx, l.js, Range{Stream: l.o.Stream, First: sequence, Last: sequence}, func(found contracts.Message, _ uint64) error {
		m = found
		return nil
	})
	if err != nil {
		l.log.Warn("what was handed back could not be read", "sequence", sequence, "reason", err.Error())
		l.owes(sequence, 0)
		return
	}
	if m.Sequence != sequence {
		return
	}
	l.log.Warn("what was handed back did not come again and is handled now", "message", m)
	m.Attempt = 2 // those that come for the first time go first
	l.mu.Lock()
	m.Failures = l.failures[sequence]
	l.mu.Unlock()
	err = l.Replay(work, []contracts.Message{m})[0]
	o := outcome.Of(err)
	l.remember(m, err != nil && o.Kind == outcome.KindTemporary)
	var written *recorded
	switch {
	case err == nil || o.Kind == outcome.KindPermanent:
	case !final(m, o):
		l.owes(sequence, retryAfter(m, o))
	case !errors.As(err, &written) && l.record(work, m, o) != nil:
		l.owes(sequence, retryAfter(m, o))
	}
}
