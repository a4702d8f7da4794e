package sms

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

const (
	// A text whose fate nobody has told for an hour is asked after; after two days Twilio
	// will not know more either.
	// https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks
	missingAfter = time.Hour
	missingUntil = 48 * time.Hour
	// mostAsked and mostTaken bound a round; the rest comes in the next.
	mostAsked = 500
	mostTaken = 2000
	// lateAfter is for how many leases a text may be due before it is taken up beside the
	// durable: two minutes. Its change comes again until then, unless a server has lost
	// track of it.
	lateAfter = 4
)

// A Walk yields all sms.* records of the bucket as messages, some at a time.
type Walk func(ctx context.Context, yield func(records []contracts.Message) error) error

// A Round says what a look at all texts came to.
type Round struct {
	Learnt int // texts of whose delivery we have learnt
	Taken  int // texts that were due for long, and are done or on their way now
}

// LookAfter sees to the texts that wait for something which may never come. Those that
// Twilio has taken an hour ago and nobody has told of since are asked after, and the answer
// is recorded as the webhook would have been; only where ask says so, since each is a call.
// Those that are due for minutes are handled as if their change had come again. Several
// processes may do it at once.
func (s *Sender) LookAfter(ctx context.Context, walk Walk, ask bool) (Round, error) {
	var done Round
	var late []contracts.Message
	untold := map[string]string{} // SIDs by key
	err := walk(ctx, func(records []contracts.Message) error {
		for _, m := range records {
			var r contracts.SMS
			if json.Unmarshal(m.Data, &r) != nil {
				continue // a key that is gone, or an incident of its own
			}
			switch {
			case s.late(r, m.Time) && len(late) < mostTaken:
				late = append(late, m)
			case ask && s.untold(r) && len(untold) < mostAsked:
				untold[contracts.KeyOfSubject(m.Subject)] = r.SID
			}
		}
		return nil
	})
	if err != nil {
		return done, fmt.Errorf("looking after texts: %w", err)
	}
	for some := range slices.Chunk(late, 100) {
		for _, err := range s.Handle(ctx, some) {
			if err == nil {
				done.Taken++
			} else if outcome.Of(err).Kind == outcome.KindBlocked {
				return done, nil // our account is at fault; the durable says so
			}
		}
	}
	for key, sid := range untold {
		learnt, err := s.ask(ctx, key, sid)
		if err != nil {
			return done, fmt.Errorf("looking after texts: %w", err)
		}
		if learnt {
			done.Learnt++
		}
	}
	return done, nil
}

// untold says whether a text was sent so long ago that its delivery should be known.
func (s *Sender) untold(r contracts.SMS) bool {
	age := s.o.Now().Sub(r.SentAt)
	return r.Status == contracts.SMSSent && r.SID != "" && age >= missingAfter && age < missingUntil
}

// late says whether a text has been due for so long that its change may not come again.
func (s *Sender) late(r contracts.SMS, stored time.Time) bool {
	from, open := s.begins(r, stored)
	if stored.After(from) {
		from = stored
	}
	return open && s.o.Now().Sub(from) > lateAfter*s.o.Lease
}

// ask asks Twilio what has become of a text. Only a fault of our account is an error: what
// fails otherwise is asked again in the next round.
func (s *Sender) ask(ctx context.Context, key, sid string) (learnt bool, err error) {
	news, a := s.messages.fetch(ctx, sid)
	if a.verdict == refused {
		return false, a.err
	}
	if a.err != nil {
		return false, nil
	}
	return true, s.o.Store.Update(ctx, func(tx *state.Tx) error { return delivery.Record(tx, key, news) })
}
