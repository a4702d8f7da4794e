package billing

import (
	"fmt"
	"slices"
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
