package billing

import (
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"go.uber.org/goleak"
	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/contracts/contractstest"
	"leadpipe/internal/identity"
	"leadpipe/internal/natstest"
	"leadpipe/internal/state"
)

// together is how many histories one check draws, so that one fold holds several
// customers' events.
const together = 4

// TestMain makes RAPID_CHECKS the number of histories that a test draws: 200 unless
// it says otherwise.
func TestMain(m *testing.M) {
	if err := flag.Set("rapid.checks", strconv.Itoa(max(1, draws()/together))); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// draws is how many histories a test draws.
func draws() int {
	if n, err := strconv.Atoi(os.Getenv("RAPID_CHECKS")); err == nil {
		return n
	}
	return 200
}

// jumbled gives some of a history's events twice, and all in any order.
func jumbled[E any](events []E, rng *rand.Rand) []E {
	events = slices.Clone(events)
	for range rng.IntN(len(events) + 1) {
		events = append(events, events[rng.IntN(len(events))])
	}
	rng.Shuffle(len(events), func(i, j int) { events[i], events[j] = events[j], events[i] })
	return events
}

func drawRand(t *rapid.T) *rand.Rand {
	return rand.New(rand.NewPCG(rapid.Uint64().Draw(t, "order"), 0))
}

func decodeAll(t rapid.TB, h history) []Event {
	t.Helper()
	var events []Event
	for _, raw := range h.events {
		e, err := decode(raw)
		if err != nil {
			t.Fatalf("%v: %s", err, raw)
		}
		events = append(events, e)
	}
	return events
}

var testRules = rules{suspendAfter: suspendAfter, region: "FR"}

// replay applies events to an empty book.
func replay(events []Event, apply func(*book, Event)) book {
	b := book{subs: map[string]contracts.Subscription{}}
	for _, e := range events {
		apply(&b, e)
	}
	return b
}

func merging(b *book, e Event) { testRules.apply(b, e) }

// lastWins is what billing would be if it believed the newest arrival.
func lastWins(b *book, e Event) {
	if s, ok := b.subs[e.about.subscription]; ok && e.sub != nil {
		s.Snapshots = nil
		b.subs[s.ID] = s
	}
	testRules.apply(b, e)
}

// differs compares a book with what is true.
func differs(h history, b book) string {
	c := b.customer
	if c.Since.IsZero() != (h.customer.Status == "") {
		return fmt.Sprintf("a customer that is %q since %v", h.customer.Status, c.Since)
	}
	// The links are identity's, see TestAnyTraffic.
	seen := contracts.Customer{ID: c.ID, Email: c.Email, Phone: c.Phone, Name: c.Name, Subscriptions: c.Subscriptions, Status: c.Status, Access: c.Access,
		LiveMode: c.LiveMode, Account: c.Account}
	subs := map[string]contracts.Subscription{}
	for id, s := range b.subs {
		s.Snapshots, s.Invoices, s.TrialAt, s.RanAt = nil, nil, time.Time{}, time.Time{}
		subs[id] = s
	}
	return cmp.Diff(h.customer, seen, cmpopts.EquateEmpty()) + cmp.Diff(h.subs, subs)
}

// ofCustomer leaves the guests' events out, who have records of their own.
func ofCustomer(h history, events []Event) []Event {
	return slices.DeleteFunc(slices.Clone(events), func(e Event) bool { return e.about.customer != h.customer.ID })
}

func TestAnyOrderTellsTheTruth(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		for _, h := range rapid.SliceOfN(rapid.Custom(drawHistory), together, together).Draw(t, "histories") {
			events := ofCustomer(h, decodeAll(t, h))
			straight := replay(events, merging)
			if diff := differs(h, straight); diff != "" {
				t.Fatalf("in order (-truth +books):\n%s", diff)
			}
			rng := drawRand(t)
			for range 1 + rng.IntN(4) {
				mixed := replay(jumbled(events, rng), merging)
				if diff := cmp.Diff(straight.subs, mixed.subs) + cmp.Diff(straight.customer, mixed.customer); diff != "" {
					t.Fatalf("(-in order +jumbled):\n%s", diff)
				}
			}
		}
	})
}

// TestTheModelCatches is the test of the test above: rules that are wrong, each of which
// some of 200 histories must show.
func TestTheModelCatches(t *testing.T) {
	t.Parallel()
	for name, apply := range map[string]func(*book, Event){
		"believing the newest arrival": lastWins,
		"another threshold": func(b *book, e Event) {
			rules{suspendAfter: 99, region: "FR"}.apply(b, e)
		},
		"an invoice's addresses dated by its event": func(b *book, e Event) {
			e.about.asOf = e.at
			testRules.apply(b, e)
		},
		"a reference as sure as metadata": func(b *book, e Event) {
			e.about.metadata, e.about.reference = nil, firstOf(append(slices.Clone(e.about.metadata), e.about.reference)...)
			testRules.apply(b, e)
		},
		"no customer object": func(b *book, e Event) {
			if e.about.rank < rankCustomerCreated {
				testRules.apply(b, e)
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			gen := rapid.Custom(drawHistory)
			for i := range 200 {
				h := gen.Example(i)
				events := jumbled(ofCustomer(h, decodeAll(t, h)), rand.New(rand.NewPCG(uint64(i), 0)))
				b := replay(events, apply)
				if differs(h, b) != "" || len(h.linked) > 0 && firstRef(h, b.customer) != h.linked && firstRef(h, b.customer) != "" {
					t.Logf("caught by history %d", i+1)
					return
				}
			}
			t.Error("not caught")
		})
	}
}

// firstRef is the lead that a customer's events name, of those that exist.
func firstRef(h history, c contracts.Customer) string {
	for _, r := range c.Refs {
		if r.ID == h.lead.ID || r.ID == h.other.ID {
			return r.ID
		}
	}
	return ""
}

// A quarter of the histories reach the threshold, so that what it does is really held
// to the truth.
func TestHistoriesReachTheThreshold(t *testing.T) {
	t.Parallel()
	gen := rapid.Custom(drawHistory)
	reached := 0
	for i := range 200 {
		if gen.Example(i).reached {
			reached++
		}
	}
	t.Logf("%d of 200 histories end suspended", reached)
	if reached < 50 {
		t.Errorf("%d of 200 histories end suspended", reached)
	}
}

func newBilling(tb testing.TB, reader Reader) *Billing {
	tb.Helper()
	tmpl, err := ParsePaymentFailed("")
	if err != nil {
		tb.Fatal(err)
	}
	b, err := New(Options{SuspendAfter: suspendAfter, Region: "FR", SMSMaxAge: 48 * time.Hour, PaymentFailed: tmpl, Reader: reader})
	if err != nil {
		tb.Fatal(err)
	}
	return b
}

// TestAnyTraffic lets one to four workers at a time fold a history, jumbled and in
// parts of any size, into a real bucket, with the lead coming in between.
func TestAnyTraffic(t *testing.T) {
	t.Parallel()
	server := natstest.New(t, natstest.LazySync)
	js := server.JetStream("consumers")
	store := state.New(js, nil)
	b := newBilling(t, nil)
	last := func() uint64 {
		s, err := server.JetStream("operator").Stream(t.Context(), contracts.StreamCRM)
		if err != nil {
			t.Fatal(err)
		}
		return s.CachedInfo().State.LastSeq
	}
	var again []func(*state.Tx) error
	rapid.Check(t, func(rt *rapid.T) {
		all := rapid.SliceOfN(rapid.Custom(drawHistory), together, together).Draw(rt, "histories")
		rng := drawRand(rt)
		var ops []func(*state.Tx) error
		for _, h := range all {
			ops = append(ops, func(tx *state.Tx) error { return identity.SetLead(tx, h.lead) },
				func(tx *state.Tx) error { return identity.SetLead(tx, h.other) })
			for _, e := range decodeAll(rt, h) {
				ops = append(ops, func(tx *state.Tx) error { return b.Decide(tx, e) })
			}
		}
		again = append(again, ops...)
		fold(rt, t, store, jumbled(ops, rng), rapid.IntRange(1, 4).Draw(rt, "workers"), rng)
		// One round trip reads all records; the commit of no change does nothing.
		if err := store.Update(t.Context(), func(tx *state.Tx) error {
			var keys []string
			for _, h := range all {
				keys = append(keys, h.keys()...)
			}
			if err := tx.Need(keys...); err != nil {
				return err
			}
			for _, h := range all {
				checkRecords(rt, tx, h)
			}
			return nil
		}); err != nil {
			rt.Fatal(err)
		}
	})
	before := last()
	fold(t, t, store, again, 2, rand.New(rand.NewPCG(1, 1)))
	if after := last(); after != before {
		t.Errorf("a replay of %d events wrote %d records", len(again), after-before)
	}
}

// checkRecords compares all records of a history with what is true, and with what a
// single reader of the events in order makes of them.
func checkRecords(rt *rapid.T, tx *state.Tx, h history) {
	rt.Helper()
	straight := replay(ofCustomer(h, decodeAll(rt, h)), merging)
	got := book{subs: map[string]contracts.Subscription{}}
	fetch(rt, tx, contracts.KeyCustomer(h.customer.ID), &got.customer)
	for id := range h.subs {
		var s contracts.Subscription
		fetch(rt, tx, contracts.KeySubscription(id), &s)
		got.subs[id] = s
	}
	if diff := differs(h, got); diff != "" {
		rt.Fatalf("(-truth +bucket):\n%s", diff)
	}
	if diff := cmp.Diff(straight.subs, got.subs); diff != "" {
		rt.Fatalf("(-in order +bucket):\n%s", diff)
	}
	checkLead(rt, tx, h, got.customer)
	for _, g := range h.guests {
		var c contracts.Customer
		if !fetch(rt, tx, contracts.KeyCustomer(g.id), &c) || c.Status != contracts.CustomerClient || c.Phone != g.phone {
			rt.Errorf("a guest who bought: %+v", c)
		}
	}
	checkChurns(rt, tx, h)
	checkTexts(rt, tx, h)
}

// fold hands operations to workers, which fold them in parts of any size.
func fold(rt rapid.TB, t *testing.T, store *state.Store, ops []func(*state.Tx) error, workers int, rng *rand.Rand) {
	rt.Helper()
	var wg sync.WaitGroup
	errs := make(chan error, len(ops))
	for w := range workers {
		mine := ops[w*len(ops)/workers : (w+1)*len(ops)/workers]
		most := 1 + rng.IntN(max(len(mine), 1))
		least := 1 + len(mine)/8 // a commit is a few milliseconds, whatever it holds
		parts := rand.New(rand.NewPCG(rng.Uint64(), 0))
		wg.Go(func() {
			for len(mine) > 0 {
				n := min(len(mine), least+parts.IntN(most))
				for _, err := range store.Fold(t.Context(), n, func(tx *state.Tx, i int) error { return mine[i](tx) }, nil) {
					if err != nil {
						errs <- err
					}
				}
				mine = mine[n:]
			}
		})
	}
	wg.Wait()
	close(errs)
	for err := range errs {
		rt.Fatal(err)
	}
}

// keys names the records that a history may end in.
func (h history) keys() []string {
	keys := []string{contracts.KeyCustomer(h.customer.ID), contracts.KeyLead(h.lead.ID), contracts.KeyLead(h.other.ID)}
	for _, g := range h.guests {
		keys = append(keys, contracts.KeyCustomer(g.id))
	}
	for id := range h.subs {
		keys = append(keys, contracts.KeySubscription(id), contracts.KeyChurn(id))
	}
	for cause := range h.failures {
		keys = append(keys, contracts.KeySMS(contracts.SMSPaymentFailed, cause))
	}
	return keys
}

// fetch reads a record and holds it against its schema; false: there is none.
func fetch(tb rapid.TB, tx *state.Tx, key string, into any) bool {
	tb.Helper()
	doc, ok, err := state.Get[json.RawMessage](tx, key)
	if err != nil {
		tb.Fatal(err)
	}
	if !ok {
		return false
	}
	kind, _, _ := strings.Cut(key, ".")
	if err := contractstest.Check(kind, doc); err != nil {
		tb.Errorf("%v", err)
	}
	if err := json.Unmarshal(doc, into); err != nil {
		tb.Fatal(err)
	}
	return true
}

func checkLead(rt *rapid.T, tx *state.Tx, h history, c contracts.Customer) {
	rt.Helper()
	if c.LeadID != h.linked {
		rt.Errorf("the customer's lead is %q, want %q, named %v", c.LeadID, h.linked, c.Refs)
	}
	for _, l := range []contracts.Lead{h.lead, h.other} {
		var lead contracts.Lead
		fetch(rt, tx, contracts.KeyLead(l.ID), &lead)
		want, of := contracts.LeadNew, ""
		if h.customer.Status != "" && (h.linked == l.ID || l.Phone != "" && slices.Contains(c.Phones, l.Phone)) {
			want, of = contracts.LeadClient, c.ID
			if h.customer.Status == contracts.CustomerChurned {
				want = contracts.LeadChurned
			}
		}
		if lead.Status != want || lead.CustomerID != of {
			rt.Errorf("lead %s is %s of %q, want %s of %q", l.ID, lead.Status, lead.CustomerID, want, of)
		}
	}
}

func checkChurns(rt *rapid.T, tx *state.Tx, h history) {
	rt.Helper()
	for id, s := range h.subs {
		var got contracts.Churn
		ok := fetch(rt, tx, contracts.KeyChurn(id), &got)
		if ended := s.Status == "canceled" && !h.never[id]; ok != ended {
			rt.Errorf("a subscription that is %s, and never ran %v: churn record %v", s.Status, h.never[id], ok)
		}
		want := contracts.Churn{SubscriptionID: id, CustomerID: h.customer.ID, Email: h.customer.Email, PriceID: s.PriceID, Amount: s.Amount,
			Currency: s.Currency, EndedAt: s.EndedAt, Reason: s.CancelReason}
		if diff := cmp.Diff(want, got); ok && diff != "" {
			var c contracts.Customer
			var full contracts.Subscription
			fetch(rt, tx, contracts.KeyCustomer(h.customer.ID), &c)
			fetch(rt, tx, contracts.KeySubscription(id), &full)
			rt.Errorf("(-want +got):\n%s\nof %+v\nand %+v", diff, c, full)
		}
	}
}

// checkTexts: which failures are told depends on which came first, but an invoice that
// is closed has no text waiting, and one that is open has one for its last failure.
func checkTexts(rt *rapid.T, tx *state.Tx, h history) {
	rt.Helper()
	highest := map[string]int{}
	for cause := range h.failures {
		invoice, n, _ := strings.Cut(cause, ".")
		var attempt int
		if _, err := fmt.Sscan(n, &attempt); err != nil {
			rt.Fatal(err)
		}
		highest[invoice] = max(highest[invoice], attempt)
		var sms contracts.SMS
		if fetch(rt, tx, contracts.KeySMS(contracts.SMSPaymentFailed, cause), &sms) && h.closed[invoice] != (sms.Status == contracts.SMSSuppressed) {
			rt.Errorf("a text on an invoice (closed: %v) is %s", h.closed[invoice], sms.Status)
		}
	}
	for cause := range h.first {
		if fetch(rt, tx, contracts.KeySMS(contracts.SMSPaymentFailed, cause), &contracts.SMS{}) {
			rt.Errorf("a text about %s, which the customer saw on the form", cause)
		}
	}
}

// In order, each failure that the customer did not see itself is told once, to the
// number that the customer has at that moment, in the right words.
func TestTextsInOrder(t *testing.T) {
	t.Parallel()
	server := natstest.New(t, natstest.LazySync)
	store := state.New(server.JetStream("consumers"), nil)
	b := newBilling(t, nil)
	const group = 50
	gen := rapid.Custom(drawHistory)
	for from := 0; from < draws(); from += group {
		// The histories go on side by side, a step each in one commit.
		var all []history
		var steps [][]func(*state.Tx) error
		longest := 0
		for i := range group {
			h := gen.Example(from + i)
			ops := []func(*state.Tx) error{func(tx *state.Tx) error { return identity.SetLead(tx, h.lead) },
				func(tx *state.Tx) error { return identity.SetLead(tx, h.other) }}
			for _, e := range decodeAll(t, h) {
				ops = append(ops, func(tx *state.Tx) error { return b.Decide(tx, e) })
			}
			all, steps, longest = append(all, h), append(steps, ops), max(longest, len(ops))
		}
		for n := range longest {
			errs := store.Fold(t.Context(), group, func(tx *state.Tx, i int) error {
				if n < len(steps[i]) {
					return steps[i][n](tx)
				}
				return nil
			}, nil)
			if err := errors.Join(errs...); err != nil {
				t.Fatal(err)
			}
		}
		if err := store.Update(t.Context(), func(tx *state.Tx) error {
			for _, h := range all {
				if err := tx.Need(h.keys()...); err != nil {
					return err
				}
				checkTextsInOrder(t, tx, h)
			}
			return nil
		}); err != nil {
			t.Fatal(err)
		}
	}
}

func checkTextsInOrder(t *testing.T, tx *state.Tx, h history) {
	t.Helper()
	for cause := range h.failures {
		var sms contracts.SMS
		ok := fetch(t, tx, contracts.KeySMS(contracts.SMSPaymentFailed, cause), &sms)
		want, told := h.texts[cause]
		if ok != told || ok && (sms.To != want.to || sms.Body != want.body) {
			t.Errorf("%s: text %v to %q: %q, want %v %+v", cause, ok, sms.To, sms.Body, told, want)
		}
	}
}
