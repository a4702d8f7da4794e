package state_test

import (
	"fmt"
	"strings"
	"testing"

	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

// opt out marks up to step of 2,100 records a time and asks to run again while some are left.
func markAll(n, step int) func(*state.Tx) error {
	return func(tx *state.Tx) error {
		keys := make([]string, n)
		for i := range keys {
			keys[i] = fmt.Sprintf("lead.%d", i)
		}
		if err := tx.Need(keys...); err != nil {
			return err
		}
		marked := 0
		for _, k := range keys {
			r, ok, err := state.Peek[number](tx, k)
			if err != nil {
				return err
			}
			if ok && r.N == 1 {
				continue
			}
			if marked == step {
				tx.Again()
				return nil
			}
			marked++
			if err := tx.Put(k, number{N: 1}); err != nil {
				return err
			}
		}
		return nil
	}
}

// A STOP of a number with more leads than one commit takes (the server's limit is 1,000
// messages) is done in steps, and takes nobody with it.
func TestDecisionLargerThanACommit(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	large := markAll(2100, 400)
	decide := func(tx *state.Tx, i int) error {
		if i == 1 {
			return large(tx)
		}
		return add(tx, fmt.Sprintf("customer.%d", i), 1)
	}
	for i, err := range s.Fold(t.Context(), 3, decide, nil) {
		if err != nil {
			t.Errorf("decision %d: %v", i, err)
		}
	}
	for _, key := range []string{"lead.0", "lead.2099", "customer.0", "customer.2"} {
		if got := b.value(key); got != `{"n":1}` {
			t.Errorf("%s: %q", key, got)
		}
	}
	before := b.lastSequence()
	if err := s.Update(t.Context(), large); err != nil {
		t.Error(err)
	}
	if got := b.lastSequence(); got != before {
		t.Errorf("once more wrote %d messages", got-before)
	}
	if err := s.Update(t.Context(), func(tx *state.Tx) error { tx.Again(); return nil }); err == nil {
		t.Error("a decision that does nothing and wants to run again goes on for ever, or is done")
	}
}

// One decision that can't be committed fails alone, whatever it is folded with: too many
// records for one commit, or one record that the server does not take (max_payload).
func TestRefusedCommitTakesNobodyWithIt(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	huge := strings.Repeat("x", 9<<20)
	decide := func(tx *state.Tx, i int) error {
		switch i {
		case 3:
			for k := range 1100 {
				if err := tx.Put(fmt.Sprintf("lead.%d", k), number{N: 1}); err != nil {
					return err
				}
			}
			return nil
		case 5:
			return tx.Put("lead.huge", number{Note: huge})
		}
		return add(tx, fmt.Sprintf("customer.%d", i), 1)
	}
	failed := func(tx *state.Tx, i int, err error) error {
		return tx.Put(fmt.Sprintf("incident.%d", i), number{N: i})
	}
	errs := s.Fold(t.Context(), 8, decide, failed)
	for i, err := range errs {
		if i == 3 || i == 5 {
			if o := outcome.Of(err); err == nil || o.Kind != outcome.KindPermanent || o.Reason != outcome.Refused {
				t.Errorf("decision %d: %v", i, err)
			}
			if got := b.value(fmt.Sprintf("incident.%d", i)); got == "" {
				t.Errorf("decision %d left no trace", i)
			}
			continue
		}
		if err != nil {
			t.Errorf("decision %d: %v", i, err)
		}
		if got := b.value(fmt.Sprintf("customer.%d", i)); got != `{"n":1}` {
			t.Errorf("customer.%d: %q", i, got)
		}
	}
	if b.value("lead.0") != "" || b.value("lead.huge") != "" {
		t.Error("a part of a refused decision is there")
	}
}

// What fails may not be able to say so either: it still fails alone.
func TestRefusedTwice(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	huge := strings.Repeat("x", 9<<20)
	errs := s.Fold(t.Context(), 3, func(tx *state.Tx, i int) error {
		if i == 1 {
			return tx.Put("lead.huge", number{Note: huge})
		}
		return add(tx, fmt.Sprintf("customer.%d", i), 1)
	}, func(tx *state.Tx, _ int, _ error) error { return tx.Put("incident.1", number{Note: huge}) })
	if errs[0] != nil || errs[1] == nil || errs[2] != nil {
		t.Errorf("errors: %v, %v, %v", errs[0], errs[1] != nil, errs[2])
	}
}

// Many decisions, each of some size, are committed in as many parts as it takes.
func TestFoldInSeveralCommits(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	for i, err := range s.Fold(t.Context(), 100, func(tx *state.Tx, i int) error {
		for k := range 50 {
			if err := tx.Put(fmt.Sprintf("lead.%d-%d", i, k), number{N: 1}); err != nil {
				return err
			}
		}
		return nil
	}, nil) {
		if err != nil {
			t.Fatalf("decision %d: %v", i, err)
		}
	}
	if got := b.lastSequence(); got != 5000 {
		t.Errorf("%d messages, of 5,000", got)
	}
}

// A peek does not tie the commit to the record.
func TestPeekIsNotDependedOn(t *testing.T) {
	t.Parallel()
	b := open(t)
	b.put("lead.peeked", `{"n":1}`)
	s := b.store(nil)
	runs := 0
	err := s.Update(t.Context(), func(tx *state.Tx) error {
		runs++
		if r, ok, err := state.Peek[number](tx, "lead.peeked"); err != nil || !ok || r.N != 1 {
			t.Errorf("peeked %v, %v, %v", r, ok, err)
		}
		b.put("lead.peeked", `{"n":1,"note":"changed meanwhile"}`)
		return add(tx, "customer.1", 1)
	})
	if err != nil || runs != 1 {
		t.Errorf("ran %d times: %v", runs, err)
	}
}

// A key that is deleted is one that the nats CLI takes for deleted, and may come back.
func TestDelete(t *testing.T) {
	t.Parallel()
	b := open(t)
	s := b.store(nil)
	b.put("lead.1", `{"n":1}`)
	remove := func(tx *state.Tx) error {
		if err := add(tx, "customer.1", 1); err != nil {
			return err
		}
		if err := tx.Delete("lead.none"); err != nil {
			return err
		}
		return tx.Delete("lead.1")
	}
	if err := s.Update(t.Context(), remove); err != nil {
		t.Fatal(err)
	}
	if got := b.value("lead.1"); got != "" {
		t.Errorf("deleted, and is %q", got)
	}
	if err := s.Update(t.Context(), func(tx *state.Tx) error {
		if _, ok, err := state.Get[number](tx, "lead.1"); ok || err != nil {
			t.Errorf("read %v, %v", ok, err)
		}
		return add(tx, "lead.1", 7)
	}); err != nil {
		t.Fatal(err)
	}
	if got := b.value("lead.1"); got != `{"n":7}` {
		t.Errorf("came back as %q", got)
	}
	before := b.lastSequence()
	if err := s.Update(t.Context(), func(tx *state.Tx) error { return tx.Delete("lead.none") }); err != nil {
		t.Fatal(err)
	}
	if got := b.lastSequence(); got != before {
		t.Error("deleting what is not there wrote something")
	}
}
