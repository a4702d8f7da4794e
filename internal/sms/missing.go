package sms

import (
	"context"
	"fmt"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/state"
)

const (
	// A text whose fate nobody has told for an hour is asked after; after two days Twilio
	// will not know more either.
	// https://www.twilio.com/docs/messaging/guides/outbound-message-status-in-status-callbacks
	missingAfter = time.Hour
	missingUntil = 48 * time.Hour
	// mostAsked bounds the questions of one round; the rest comes in the next.
	mostAsked = 500
	// readAtOnce is how many records are read in one round trip.
	readAtOnce = 500
)

// Missing asks Twilio what has become of texts whose delivery status has not come, and
// records it as the webhook would have. keys lists the sms.* keys of the bucket. Several
// processes may do it at once: the same news changes nothing. It gives how many texts it
// has learnt of.
func (s *Sender) Missing(ctx context.Context, keys func(context.Context, func(key string) error) error) (learnt int, err error) {
	var page []string
	asked := 0
	look := func() error {
		texts, err := s.overdue(ctx, page)
		page = page[:0]
		if err != nil {
			return err
		}
		for key, sid := range texts {
			if asked++; asked > mostAsked {
				return nil
			}
			news, a := s.messages.fetch(ctx, sid)
			if a.verdict == refused {
				return a.err // our account: nothing else will be answered either
			}
			if a.err != nil {
				continue // in the next round
			}
			if err := s.o.Store.Update(ctx, func(tx *state.Tx) error { return delivery.Record(tx, key, news) }); err != nil {
				return err
			}
			learnt++
		}
		return nil
	}
	err = keys(ctx, func(key string) error {
		if page = append(page, key); len(page) < readAtOnce {
			return nil
		}
		return look()
	})
	if err == nil {
		err = look()
	}
	if err != nil {
		return learnt, fmt.Errorf("asking after texts: %w", err)
	}
	return learnt, nil
}

// overdue gives the texts among some records whose status is missing, key by SID.
func (s *Sender) overdue(ctx context.Context, keys []string) (map[string]string, error) {
	now := s.o.Now()
	found := map[string]string{}
	err := s.o.Store.Update(ctx, func(tx *state.Tx) error {
		clear(found)
		if err := tx.Need(keys...); err != nil {
			return err
		}
		for _, key := range keys {
			r, ok, err := state.Peek[contracts.SMS](tx, key)
			if err != nil || !ok {
				continue // one that can't be read has an incident of its own
			}
			if age := now.Sub(r.SentAt); r.Status == contracts.SMSSent && r.SID != "" && age >= missingAfter && age < missingUntil {
				found[key] = r.SID
			}
		}
		return nil
	})
	return found, err
}
