package sms

import (
	"context"
	"errors"
	"fmt"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
)

// MaxGap is how old a look may be when the text's first byte leaves. The edge answers a
// STOP no sooner than 250 ms after it was stored: a look that began before the STOP was
// stored, and missed it, has by then led to a call or come to nothing. No clocks are
// compared, only durations.
//
// 200 ms would do on paper. But between the last check and the socket lies the
// scheduler, and 50 ms for it are too few: at a load of four to a core, 3 calls in
// 10,000 numbers raced were up to 10 ms late. A look takes about a millisecond, so that
// the shorter time costs nothing.
const MaxGap = 100 * time.Millisecond

// A holdError is a gate that did not open: nothing has left.
type holdError struct {
	why   string
	again time.Duration // when to try again
	err   error
}

func (h *holdError) Error() string {
	if h.err != nil {
		return h.why + ": " + h.err.Error()
	}
	return h.why
}

func (h *holdError) Unwrap() error { return h.err }

// A Look finds the newest message on a subject of WEBHOOKS, by asking its leader;
// false where there is none. state.Store.Last is one.
type Look func(ctx context.Context, subject string) (contracts.Message, bool, error)

// gate is the last word before a text's first byte. It refuses one whose claim has
// become too old, and one whose number has said STOP.
func (s *Sender) gate(j *job) func(context.Context) error {
	return func(ctx context.Context) error {
		for {
			began := time.Now()
			if began.After(j.latest) {
				// More is claimed than this machine can call; a pause relieves it.
				return &holdError{why: "the claim is too old", again: firstPause}
			}
			if j.sms.Kind == contracts.SMSOptOutConfirmation {
				return nil // the one text that follows a STOP
			}
			m, found, err := s.o.Look(ctx, contracts.SubjectOptOut(j.digits()))
			if err != nil {
				return &holdError{why: "looking for an opt-out", again: s.o.Hold, err: lookError(err)}
			}
			// The contact as it was at the claim shows no opt-out, so that this one has
			// not been processed, or an operator has allowed texts again after it.
			if found && consent.Counts(j.contact, m.OccurredAt()) {
				return &holdError{why: "an opt-out waits to be processed", again: s.o.Hold}
			}
			if time.Since(began) <= s.o.gap {
				return nil
			}
		}
	}
}

// lookError keeps the subject, which ends with a number, out of what is logged.
func lookError(err error) error {
	if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, context.Canceled) {
		return fmt.Errorf("no answer in time")
	}
	return err
}
