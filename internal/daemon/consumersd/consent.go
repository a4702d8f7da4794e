package consumersd

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/phone"
	"leadpipe/internal/state"
)

// consentCommands are a person's decisions about a number.
func consentCommands() []command {
	return []command{
		{name: "opt-out", args: "PHONE", count: 1, run: optOut,
			does: "The number gets no more texts. Its record, its contact and its leads say so, with the operator as the source."},
		{name: "opt-in", args: "PHONE [--request TIME] [--yes]", count: 1, run: optIn, flags: func(set *flag.FlagSet, o *options) {
			set.BoolVar(&o.yes, "yes", false, "do not ask")
			set.StringVar(&o.request, "request", "", "when the person asked for it, if not by START: 2026-11-24T10:00:00Z")
		},
			does: "The number may be texted again, in answer to its START or to a request made otherwise. It says what it undoes,\nasks, and refuses where a STOP is newer than the request."},
		{name: "no-opt-out", args: "PHONE", count: 1, run: noOptOut,
			does: "What the number has said was no opt-out: the incident is closed and welcomes leave again. An opt-out stays one."},
	}
}

// number reads the argument.
func (op *operator) number(arg string) (phone.Number, error) {
	n, err := phone.Parse(arg, op.cfg.Region)
	if err != nil {
		return "", fmt.Errorf("%w: the phone number is %w", errUsage, err)
	}
	return n, nil
}

// decide carries out a decision as of a moment before everything that is still under way,
// so that a STOP that arrives meanwhile is the later word.
func (op *operator) decide(n phone.Number, o options, done string, decision func(tx *state.Tx, at time.Time) error) error {
	at := time.Now().UTC().Truncate(time.Millisecond)
	if err := op.store.Update(op.ctx, func(tx *state.Tx) error { return decision(tx, at) }); err != nil {
		return err
	}
	s, err := op.standing(n)
	if err != nil {
		return err
	}
	if o.json {
		return json.NewEncoder(op.out).Encode(s)
	}
	_, err = fmt.Fprintf(op.out, "%s: %s; %d leads, %d customers\n", n, done, s.Leads, s.Customers)
	return err
}

func (op *operator) standing(n phone.Number) (s consent.Standing, err error) {
	err = op.store.Update(op.ctx, func(tx *state.Tx) error {
		s, err = consent.Look(tx, string(n))
		return err
	})
	return s, err
}

func optOut(op *operator, o options, args []string) error {
	n, err := op.number(args[0])
	if err != nil {
		return err
	}
	return op.decide(n, o, "opted out", func(tx *state.Tx, at time.Time) error { return consent.OptOut(tx, string(n), at) })
}

func noOptOut(op *operator, o options, args []string) error {
	n, err := op.number(args[0])
	if err != nil {
		return err
	}
	return op.decide(n, o, "what it said was no opt-out", func(tx *state.Tx, at time.Time) error { return consent.NoOptOut(tx, string(n), at) })
}

func optIn(op *operator, o options, args []string) error {
	n, err := op.number(args[0])
	if err != nil {
		return err
	}
	var request time.Time
	if o.request != "" {
		if request, err = time.Parse(time.RFC3339, o.request); err != nil {
			return fmt.Errorf("%w: --request is not a time such as 2026-11-24T10:00:00Z", errUsage)
		}
	}
	s, err := op.standing(n)
	if err != nil {
		return err
	}
	if !s.Out {
		return consent.ErrNotOut
	}
	if request.IsZero() {
		request = s.AskedAt
	}
	// A STOP that the edge has stored and nobody has processed yet counts too.
	at := time.Now().UTC().Truncate(time.Millisecond)
	m, found, err := op.store.Last(op.ctx, contracts.SubjectOptOut(n.Digits()))
	if err != nil {
		return err
	}
	if found && m.OccurredAt().After(request) && !request.IsZero() {
		return fmt.Errorf("%w: STOP at %s, request at %s", consent.ErrNewerStop, stamp(m.OccurredAt()), stamp(request))
	}
	if !o.json {
		_, _ = fmt.Fprintf(op.out, "%s opted out at %s", n, stamp(s.OptedOutAt))
		if !request.IsZero() {
			_, _ = fmt.Fprintf(op.out, " and asked to be texted again at %s", stamp(request))
		}
		_, _ = fmt.Fprintf(op.out, ".\nThis undoes the opt-out for the number, %d leads and %d customers.\n", s.Leads, s.Customers)
	}
	if err := op.ask("May it be texted again?", o.yes); err != nil {
		return err
	}
	return op.decide(n, o, "may be texted again", func(tx *state.Tx, _ time.Time) error {
		err := consent.OptIn(tx, string(n), at, request)
		if errors.Is(err, consent.ErrNewerStop) {
			return fmt.Errorf("%w (%s)", err, stamp(request))
		}
		return err
	})
}

func stamp(t time.Time) string { return t.UTC().Format(time.RFC3339) }
