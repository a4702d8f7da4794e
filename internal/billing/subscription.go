package billing

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
)

// terminal says whether a subscription can't come back from a status.
func terminal(status string) bool { return status == "canceled" || status == "incomplete_expired" }

// ran says whether a subscription of that status runs or has run. One that was never
// paid ends as incomplete_expired, so one that is canceled has run.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func ran(status string) bool {
	return status != "" && status != "incomplete" && status != "incomplete_expired"
}

// endedAs is the status of a subscription that was deleted, whatever status the event
// shows. One that was still incomplete was never paid, and ends as one that expired does.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func endedAs(status string) string {
	switch {
	case terminal(status):
		return status
	case status == "incomplete":
		return "incomplete_expired"
	}
	return "canceled"
}

// addSnapshot enters what an event says of its subscription: whether it tries or runs,
// and a candidate for the newest state. An end outweighs all, then the second counts,
// then the rank. What is left is a set, in which the order of events no longer shows.
func addSnapshot(s *contracts.Subscription, e Event) {
	switch status := e.sub.state.Status; {
	case status == "trialing":
		s.TrialAt = earlier(s.TrialAt, e.at)
	case ran(status):
		s.RanAt = earlier(s.RanAt, e.at)
	}
	if e.reading != nil {
		s.Settled = e.reading
	}
	n := contracts.Snapshot{Event: e.id, Created: e.at.Unix(), Rank: e.sub.rank, State: e.sub.state, Before: e.sub.before}
	if len(s.Snapshots) > 0 {
		switch d := compare(n, s.Snapshots[0]); {
		case d < 0:
			return
		case d > 0:
			s.Snapshots = []contracts.Snapshot{n}
			return
		}
	}
	i, ok := slices.BinarySearchFunc(s.Snapshots, n.Event, func(o contracts.Snapshot, id string) int { return strings.Compare(o.Event, id) })
	if !ok {
		s.Snapshots = slices.Insert(slices.Clone(s.Snapshots), i, n)
	}
}

func compare(a, b contracts.Snapshot) int {
	ended := func(s contracts.Snapshot) int { return truth(s.Rank == rankDeleted || terminal(s.State.Status)) }
	return cmp.Or(ended(a)-ended(b), cmp.Compare(a.Created, b.Created), a.Rank-b.Rank)
}

// same compares two states. Their times are whole seconds in UTC.
func same(a, b contracts.SubscriptionState) bool { return reflect.DeepEqual(a, b) }

// candidates gives the states that may be the newest, one snapshot each, sorted by
// event id. An update says what was before it, so that the events of one second form
// a chain, and the state that nothing follows is its end. There are several such if
// an event has not come yet, and none, so that all may be, if a state came back within
// the second.
func candidates(set []contracts.Snapshot) []contracts.Snapshot {
	if len(set) == 1 {
		return set
	}
	followed := func(state contracts.SubscriptionState) bool {
		return slices.ContainsFunc(set, func(s contracts.Snapshot) bool {
			return s.Before != nil && same(*s.Before, state) && !same(*s.Before, s.State)
		})
	}
	var ends, all []contracts.Snapshot
	for _, s := range slices.Backward(set) {
		if slices.ContainsFunc(all, func(o contracts.Snapshot) bool { return same(o.State, s.State) }) {
			continue
		}
		all = append(all, s)
		if !followed(s.State) {
			ends = append(ends, s)
		}
	}
	if len(ends) == 0 {
		ends = all
	}
	slices.Reverse(ends)
	return ends
}

// settle computes a subscription's fields from its snapshots and invoices, and says
// whether the newest state is a guess.
func (r rules) settle(s *contracts.Subscription) (undecided bool) {
	if len(s.Snapshots) > 0 {
		ends := candidates(s.Snapshots)
		n := ends[len(ends)-1] // a guess, the same in every order of events
		named := slices.IndexFunc(ends, func(c contracts.Snapshot) bool { return s.Settled != nil && same(c.State, *s.Settled) })
		switch {
		case len(ends) == 1:
			s.Settled = nil
		case named >= 0:
			n = ends[named]
		default:
			s.Settled, undecided = nil, true
		}
		s.AsOf = time.Unix(n.Created, 0).UTC()
		s.Status, s.PriceID, s.ProductID = n.State.Status, n.State.PriceID, n.State.ProductID
		s.Amount, s.Currency, s.Interval = n.State.Amount, n.State.Currency, n.State.Interval
		s.IntervalCount, s.Items = n.State.IntervalCount, n.State.Items
		s.CancelAtPeriodEnd, s.CancelAt, s.CurrentPeriodEnd = n.State.CancelAtPeriodEnd, n.State.CancelAt, n.State.CurrentPeriodEnd
		s.CanceledAt, s.EndedAt, s.CancelReason = n.State.CanceledAt, n.State.EndedAt, n.State.CancelReason
		if terminal(s.Status) && s.EndedAt.IsZero() {
			s.EndedAt = s.AsOf
		}
	}
	s.FailedAttempts, s.NextAttemptAt = failing(*s)
	s.Access = r.access(*s)
	return undecided
}

// access says whether a subscription's services are on; "" while nothing says. Where
// the account sends no snapshots, its invoices have to say.
func (r rules) access(s contracts.Subscription) contracts.Access {
	switch s.Status {
	case "":
		switch {
		case s.FailedAttempts >= r.suspendAfter:
			return contracts.AccessSuspended
		case newestPaid(s).Closed != "":
			return contracts.AccessActive
		}
		return ""
	case "active", "trialing", "past_due":
		if s.FailedAttempts >= r.suspendAfter {
			return contracts.AccessSuspended
		}
		return contracts.AccessActive
	case "unpaid", "paused":
		return contracts.AccessSuspended
	}
	return contracts.AccessStopped // incomplete, an end, or a status that Stripe invents later
}

// began is since when a subscription makes its customer a client: a trial, or that it
// runs; zero: not yet, or never. One whose first invoice was given up, and of which
// nothing was ever paid, only seemed to run: with SEPA Direct Debit a subscription is
// active while its first debit is on its way.
// https://docs.stripe.com/billing/subscriptions/sepa-debit
func began(s contracts.Subscription) time.Time {
	at := earlier(s.TrialAt, s.RanAt)
	if !s.TrialAt.IsZero() || newestPaid(s).Closed != "" {
		return at
	}
	for _, i := range s.Invoices {
		if i.First && i.Closed != "" {
			return time.Time{}
		}
	}
	return at
}
