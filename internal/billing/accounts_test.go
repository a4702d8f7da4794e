package billing

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"pgregory.net/rapid"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
)

// An event is taken to say something new of Stripe as a whole where entering it changes
// what is known, or where somebody has to be told that snapshots are missing, and nowhere
// else: a change that is not seen is lost, and one that is seen for nothing makes all
// events depend on one record.
func TestWhatEnterChangesIsSeen(t *testing.T) {
	t.Parallel()
	begin := time.Date(2026, 3, 1, 0, 0, 0, 0, time.UTC)
	rapid.Check(t, func(t *rapid.T) {
		var known contracts.StripeAccounts
		b := &Billing{}
		for range rapid.IntRange(1, 30).Draw(t, "events") {
			if n := rapid.SampledFrom([]int{0, 0, 0, mostForeign - 1, mostForeign}).Draw(t, "foreign"); len(known.Worlds) > 1 {
				for i := len(known.Customers); i < n; i++ {
					known.Customers = with(known.Customers, fmt.Sprintf("cus_f%03d", i))
				}
			}
			e := Event{
				at:      begin.Add(time.Duration(rapid.IntRange(0, 4).Draw(t, "half days"))*12*time.Hour + time.Duration(rapid.SampledFrom([]int{0, 0, 0, -1, 1}).Draw(t, "seconds"))*time.Second),
				live:    rapid.Bool().Draw(t, "live"),
				account: rapid.SampledFrom([]string{"", "acct_1"}).Draw(t, "account"),
				about:   about{customer: rapid.SampledFrom([]string{"cus_1", "cus_2"}).Draw(t, "customer")},
			}
			switch rapid.SampledFrom([]string{"invoice of a subscription", "invoice of a subscription", "invoice of a subscription", "invoice", "subscription named", "other", "snapshot"}).Draw(t, "kind") {
			case "snapshot":
				e.about.subscription, e.sub = "sub_1", &subscriptionFact{}
			case "invoice":
				e.invoice = &invoiceFact{}
			case "invoice of a subscription":
				e.about.subscription, e.invoice = "sub_1", &invoiceFact{}
			case "subscription named": // a checkout session
				e.about.subscription = "sub_1"
			}
			seen := b.changes(known, e)
			after := known
			after.Worlds, after.Customers, after.Resettle = slices.Clone(known.Worlds), slices.Clone(known.Customers), slices.Clone(known.Resettle)
			enter(&after, e)
			// A day of invoices of subscriptions, of the world that counts, without a snapshot.
			missing := e.invoice != nil && e.about.subscription != "" && accounts(known).first(e) && !known.Snapshots &&
				!known.InvoiceAt.IsZero() && e.at.Sub(known.InvoiceAt) >= 24*time.Hour
			if diff := cmp.Diff(known, after); seen != (diff != "" || missing) {
				t.Fatalf("seen: %v, snapshots missing: %v, and what enter changed (-before +after):\n%s", seen, missing, diff)
			}
			// Real money before tests, the own account before a connected one.
			order := []string{string(identity.Live), "acct_1", "test", "acct_1/test"}
			if !slices.IsSortedFunc(after.Worlds, func(x, y string) int { return slices.Index(order, x) - slices.Index(order, y) }) {
				t.Fatalf("worlds in the order %q", after.Worlds)
			}
			after.Resettle = nil // settled by the next commits
			known = after
		}
	})
}

// said is an event of another world than the own account's live mode.
func said(world string, raw []byte) []byte {
	if world == "test" {
		return []byte(strings.Replace(string(raw), `"livemode":true`, `"livemode":false`, 1))
	}
	return []byte(strings.Replace(string(raw), `"livemode":true`, fmt.Sprintf(`"livemode":true,"account":%q`, world), 1))
}

// incident reads an open incident, and its reason among outcome's.
func (d *desk) incident(id string) (i contracts.Incident, reason string) {
	d.Helper()
	for _, o := range get[contracts.IncidentIndex](d, contracts.KeyIncidentIndex).Open {
		if o.ID == id {
			reason = o.Reason
		}
	}
	return get[contracts.Incident](d, contracts.KeyIncident(id)), reason
}

func (d *desk) open(id string) bool {
	d.Helper()
	return d.exists(contracts.KeyIncident(id)) && get[contracts.Incident](d, contracts.KeyIncident(id)).ResolvedAt.IsZero()
}

// Of one account nobody has to be told anything, whatever comes first.
func TestMutantOneWorldIsNoIncident(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("1", "customer.created", 0, `{"id":"cus_1"}`),
		ev("2", "customer.subscription.created", 1, snapshot("active")),
		ev("3", "invoice.paid", 2, bill("in_1", 1, 1)),
		ev("4", "invoice.paid", 40*dayLong, bill("in_2", 40*dayLong, 1)))
	for _, id := range []string{mixedIncident, noSnapshotsIncident} {
		if d.exists(contracts.KeyIncident(id)) {
			t.Errorf("%s: %+v", id, get[map[string]any](d, contracts.KeyIncident(id)))
		}
	}
}

// The incident of several worlds says which webhook brought the other one, what counts,
// and what to do; it is open while the other one comes, and for a day after.
// https://docs.stripe.com/keys#test-live-modes
func TestMutantWorldsIncident(t *testing.T) {
	const fullHour = 3200 // how long ago the other one came is known by the hour
	d := newDesk(t, nil)
	d.handle(ev("1", "customer.created", 0, `{"id":"cus_1"}`))
	d.handle(said("test", ev("2", "customer.created", fullHour, `{"id":"cus_t"}`)))
	i, reason := d.incident(mixedIncident)
	if reason != "refused" || !d.open(mixedIncident) || i.Consumer != contracts.Billing || i.Sequence != 2 || i.Stream != contracts.StreamWebhooks || i.Subject != "webhooks.stripe.test" ||
		!strings.Contains(i.Action, contracts.KeyStripe) || !strings.Contains(i.Reason, "(live, test): only those of live") {
		t.Errorf("%s: %+v", reason, i)
	}
	day := func(id string, more int64) []byte {
		return ev(id, "customer.updated", fullHour+dayLong+more, `{"id":"cus_1"}`)
	}
	if d.handle(day("3", -1)); !d.open(mixedIncident) {
		t.Error("closed before the day was over")
	}
	if d.handle(day("4", 0)); d.open(mixedIncident) {
		t.Error("open after a day of the account alone")
	}
	if d.handle(ev("5", "customer.subscription.created", 3*dayLong, snapshot("active"))); d.open(mixedIncident) {
		t.Error("opened again by the account's own event")
	}
	if d.handle(said("test", ev("6", "customer.updated", 4*dayLong, `{"id":"cus_t"}`))); !d.open(mixedIncident) {
		t.Error("tests come again, and nobody is told")
	}
}

// An account that sends invoices of subscriptions and no subscription for a day has not
// enabled the events of subscriptions; a snapshot shows that it has.
// https://docs.stripe.com/billing/subscriptions/webhooks
func TestMutantMissingSnapshots(t *testing.T) {
	d := newDesk(t, nil)
	d.handle(ev("1", "invoice.paid", 0, bill("in_1", 0, 1)), ev("2", "invoice.paid", dayLong-1, bill("in_2", dayLong, 1)))
	if d.open(noSnapshotsIncident) {
		t.Error("open before the day was over")
	}
	d.handle(ev("3", "invoice.paid", dayLong, bill("in_3", dayLong, 1)))
	i, reason := d.incident(noSnapshotsIncident)
	if reason != "unknown" || !d.open(noSnapshotsIncident) || i.Sequence != 3 || !strings.Contains(i.Action, "customer.subscription") ||
		!strings.Contains(i.Reason, "customer.subscription.created, customer.subscription.") {
		t.Errorf("%s: %+v", reason, i)
	}
	if d.handle(ev("4", "customer.subscription.updated", 2*dayLong, snapshot("active"))); d.open(noSnapshotsIncident) {
		t.Error("a snapshot came, and the incident is open")
	}
	// What tests have shown says nothing of real money, which counts as soon as it comes.
	d = newDeskBeside(t)
	d.handle(said("test", ev("1", "customer.subscription.created", 0, snapshot("active"))),
		ev("2", "invoice.paid", 1, bill("in_1", 0, 1)), ev("3", "invoice.paid", dayLong+1, bill("in_2", dayLong, 1)))
	if !d.open(noSnapshotsIncident) {
		t.Error("real invoices come without snapshots, and nobody is told")
	}
}

// The customers of another world are remembered up to a bound, in case theirs is the one
// that counts after all.
func TestMutantForeignCustomersAreBounded(t *testing.T) {
	t.Parallel()
	var a contracts.StripeAccounts
	enter(&a, Event{live: true, at: at(0)})
	for n := range mostForeign + 5 {
		enter(&a, Event{at: at(0), about: about{customer: fmt.Sprintf("cus_%03d", n)}})
	}
	if len(a.Customers) != 200 {
		t.Errorf("%d customers", len(a.Customers))
	}
}
