package billing

import (
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
)

const (
	// mostForeign bounds the customers that are remembered to be of another world than the
	// own account's live mode, in case that begins later.
	mostForeign = 200
	// resettleAtOnce is how many of them one commit computes again.
	resettleAtOnce = 20
	// noSnapshotsAfter is how long invoices of subscriptions may come without a single
	// snapshot before somebody is told that an event type is missing.
	noSnapshotsAfter = 24 * time.Hour
	// unmixedAfter is how long only one world has to be seen for the incident of several
	// to be closed.
	unmixedAfter = 24 * time.Hour

	mixedIncident       = "billing-worlds"
	noSnapshotsIncident = "billing-no-snapshots"
)

// accounts is what has been seen of Stripe as a whole.
type accounts contracts.StripeAccounts

// first says whether an event is of the world that counts.
func (a accounts) first(e Event) bool { return len(a.Worlds) == 0 || a.Worlds[0] == string(e.world()) }

// account enters what an event says of Stripe as a whole: which modes and accounts send
// webhooks here, and whether any subscription's state is told. ready: the event itself
// may be handled now. Most events change nothing of it, and their commits do not depend
// on it.
func (b *Billing) account(tx *state.Tx, e Event) (a accounts, ready bool, err error) {
	held, _, err := state.Peek[contracts.StripeAccounts](tx, contracts.KeyStripe)
	if err != nil {
		return a, false, err
	}
	if len(held.Resettle) > 0 {
		return a, false, resettle(tx)
	}
	if !b.changes(held, e) {
		return accounts(held), true, closeMixed(tx, held, e)
	}
	now, _, err := state.Get[contracts.StripeAccounts](tx, contracts.KeyStripe)
	if err != nil {
		return a, false, err
	}
	begins := enter(&now, e)
	if err := tx.Put(contracts.KeyStripe, now); err != nil {
		return a, false, err
	}
	if !accounts(now).first(e) || begins {
		if err := raiseMixed(tx, now, e); err != nil {
			return a, false, err
		}
	}
	if err := b.missingSnapshots(tx, now, e); err != nil {
		return a, false, err
	}
	if len(now.Resettle) > 0 {
		tx.Again()
		return a, false, nil
	}
	return accounts(now), true, nil
}

// changes says whether an event says something new of Stripe as a whole.
func (b *Billing) changes(held contracts.StripeAccounts, e Event) bool {
	world := string(e.world())
	switch {
	case !slices.Contains(held.Worlds, world):
		return true
	case e.world() != identity.Live && !slices.Contains(held.Customers, e.about.customer) && len(held.Customers) < mostForeign:
		return true
	case held.Worlds[0] != world && e.at.Truncate(time.Hour).After(held.ForeignAt):
		return true
	case held.Worlds[0] != world || held.Snapshots:
		return false
	}
	return e.sub != nil || e.invoice != nil && e.about.subscription != "" &&
		(held.InvoiceAt.IsZero() || e.at.Before(held.InvoiceAt) || e.at.Sub(held.InvoiceAt) >= noSnapshotsAfter)
}

// enter merges an event into what is known of Stripe. begins: its world is new, counts
// before all others, and is not the only one, so that links have to be computed again.
func enter(a *contracts.StripeAccounts, e Event) (begins bool) {
	world := string(e.world())
	if !slices.Contains(a.Worlds, world) {
		begins = len(a.Worlds) > 0 && e.world().Before(identity.World(a.Worlds[0]))
		a.Worlds = append(a.Worlds, world)
		slices.SortFunc(a.Worlds, func(x, y string) int {
			if identity.World(x).Before(identity.World(y)) {
				return -1
			}
			return 1
		})
	}
	if begins {
		a.Resettle = slices.Clone(a.Customers)
		a.InvoiceAt, a.Snapshots = time.Time{}, false // of the world that counted until now
	}
	if e.world() != identity.Live && len(a.Customers) < mostForeign {
		a.Customers = with(a.Customers, e.about.customer)
	}
	switch {
	case a.Worlds[0] != world:
		if at := e.at.Truncate(time.Hour); at.After(a.ForeignAt) {
			a.ForeignAt = at
		}
	case e.sub != nil:
		a.Snapshots, a.InvoiceAt = true, time.Time{}
	case e.invoice != nil && e.about.subscription != "" && !a.Snapshots:
		a.InvoiceAt = earlier(a.InvoiceAt, e.at)
	}
	return begins
}

// resettle computes the links of some customers again, now that another world counts.
func resettle(tx *state.Tx) error {
	a, _, err := state.Get[contracts.StripeAccounts](tx, contracts.KeyStripe)
	if err != nil {
		return err
	}
	some := a.Resettle[:min(len(a.Resettle), resettleAtOnce)]
	var keys []string
	for _, id := range some {
		keys = append(keys, contracts.KeyCustomer(id))
	}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	for _, key := range keys {
		c, ok, err := state.Get[contracts.Customer](tx, key)
		if err != nil {
			return err
		}
		if ok {
			if err := identity.SetCustomer(tx, c); err != nil {
				return err
			}
		}
	}
	a.Resettle = a.Resettle[len(some):]
	tx.Again()
	return tx.Put(contracts.KeyStripe, a)
}

func raiseMixed(tx *state.Tx, a contracts.StripeAccounts, e Event) error {
	return incident.Raise(tx, incident.Report{
		ID: mixedIncident, Consumer: contracts.Billing, Reason: outcome.Refused, Severity: contracts.SeverityWarning, At: e.at, Message: e.message,
		Text: "webhooks come from several of Stripe's modes or accounts (" + strings.Join(a.Worlds, ", ") + "): only those of " + a.Worlds[0] +
			" are linked to leads and texted; the others have records of their own. To stop them, take their secret out of STRIPE_WEBHOOK_SECRET",
		Action: "nats kv get " + contracts.Bucket + " " + contracts.KeyStripe,
	})
}

// closeMixed closes the incident of several worlds once only the first has been seen for
// a day.
func closeMixed(tx *state.Tx, a contracts.StripeAccounts, e Event) error {
	if len(a.Worlds) < 2 || e.at.Sub(a.ForeignAt) < unmixedAfter {
		return nil
	}
	return incident.Resolve(tx, mixedIncident, e.at)
}

// missingSnapshots tells of an account whose invoices come and whose subscriptions do
// not: what is known of those is then a guess.
func (b *Billing) missingSnapshots(tx *state.Tx, a contracts.StripeAccounts, e Event) error {
	switch {
	case !accounts(a).first(e):
		return nil
	case a.Snapshots:
		return incident.Resolve(tx, noSnapshotsIncident, e.at)
	case a.InvoiceAt.IsZero() || e.at.Sub(a.InvoiceAt) < noSnapshotsAfter:
		return nil
	}
	return incident.Raise(tx, incident.Report{
		ID: noSnapshotsIncident, Consumer: contracts.Billing, Reason: outcome.Unknown, Severity: contracts.SeverityWarning, At: e.at, Message: e.message,
		Text: "Stripe sends invoices of subscriptions and no subscription's state: enable " + strings.Join(subscriptionTypes(), ", ") +
			" at the webhook endpoint; until then plans, periods and ends are not known",
		Action: "nats stream view " + contracts.StreamWebhooks + " --subject 'webhooks.stripe.customer.subscription.>'",
	})
}

func subscriptionTypes() []string {
	return slices.DeleteFunc(contracts.StripeEventTypes(), func(t string) bool { return !strings.HasPrefix(t, "customer.subscription.") })
}
