package billing

import (
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"math/rand/v2"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
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
	n, err := strconv.Atoi(os.Getenv("RAPID_CHECKS"))
	if err != nil {
		n = 200
	}
	if err := flag.Set("rapid.checks", strconv.Itoa(max(1, n/together))); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
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
	b.customer.Facts, b.customer.Emails, b.customer.Phones, b.customer.Invoices = nil, nil, nil, nil
	b.customer.LeadID = "" // the links are identity's, see TestAnyTraffic
	subs := map[string]contracts.Subscription{}
	for id, s := range b.subs {
		s.Snapshots, s.Invoices = nil, nil
		subs[id] = s
	}
	return cmp.Diff(h.customer, b.customer) + cmp.Diff(h.subs, subs)
}

func TestAnyOrderTellsTheTruth(t *testing.T) {
	t.Parallel()
	rapid.Check(t, func(t *rapid.T) {
		for _, h := range rapid.SliceOfN(rapid.Custom(drawHistory), together, together).Draw(t, "histories") {
			events := decodeAll(t, h)
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

// TestTheModelCatchesARuleThatDependsOnOrder is the test of the test above.
func TestTheModelCatchesARuleThatDependsOnOrder(t *testing.T) {
	t.Parallel()
	gen := rapid.Custom(drawHistory)
	for i := range 200 {
		h := gen.Example(i)
		events := decodeAll(t, h)
		if differs(h, replay(jumbled(events, rand.New(rand.NewPCG(uint64(i), 0))), lastWins)) != "" {
			t.Logf("caught by history %d", i+1)
			return
		}
	}
	t.Error("believing the newest arrival was not caught")
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
			ops = append(ops, func(tx *state.Tx) error { return identity.SetLead(tx, h.lead) })
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
	straight := replay(decodeAll(rt, h), merging)
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
	keys := []string{contracts.KeyCustomer(h.customer.ID), contracts.KeyLead(h.lead.ID)}
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
	var lead contracts.Lead
	fetch(rt, tx, contracts.KeyLead(h.lead.ID), &lead)
	known := c.LeadRef == h.lead.ID || slices.Contains(c.Phones, h.lead.Phone)
	want, of, leadID := contracts.LeadNew, "", c.LeadRef // which may name a lead that never came
	if known {
		leadID = h.lead.ID
		if !c.Since.IsZero() {
			want, of = contracts.LeadClient, c.ID
			if c.Status == contracts.CustomerChurned {
				want = contracts.LeadChurned
			}
		}
	}
	if lead.Status != want || lead.CustomerID != of || c.LeadID != leadID {
		rt.Errorf("lead is %s of %q, want %s of %q; the customer's lead is %q, want %q", lead.Status, lead.CustomerID, want, of, c.LeadID, leadID)
	}
}

func checkChurns(rt *rapid.T, tx *state.Tx, h history) {
	rt.Helper()
	for id, s := range h.subs {
		var got contracts.Churn
		ok := fetch(rt, tx, contracts.KeyChurn(id), &got)
		if ok != (s.Status == "canceled") {
			rt.Errorf("a subscription that is %s: churn record %v", s.Status, ok)
		}
		want := contracts.Churn{SubscriptionID: id, CustomerID: h.customer.ID, Email: h.customer.Email, PriceID: s.PriceID, Amount: s.Amount,
			Currency: s.Currency, EndedAt: s.EndedAt, Reason: s.CancelReason}
		if ok && got != want {
			rt.Errorf("(-want +got):\n%s", cmp.Diff(want, got))
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
	for _, invoice := range slices.Sorted(maps.Keys(highest)) {
		n := highest[invoice]
		first := false // a subscription's first payment, of which no text tells
		for _, e := range h.events {
			first = first || n == 1 && strings.Contains(string(e), invoice) && strings.Contains(string(e), `"subscription_create"`)
		}
		ok := fetch(rt, tx, contracts.KeySMS(contracts.SMSPaymentFailed, fmt.Sprintf("%s.%d", invoice, n)), &contracts.SMS{})
		if !h.closed[invoice] && ok == first {
			rt.Errorf("the last failure of an open invoice (first payment: %v): text %v", first, ok)
		}
	}
}
