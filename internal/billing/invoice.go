package billing

import (
	"cmp"
	"maps"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
)

// What closes an invoice, in Invoice.Closed.
const (
	closedPaid          = "paid"
	closedVoid          = "void"
	closedUncollectible = "uncollectible"
)

// closedRank: a debt that was written off may still be voided, or paid after all.
// https://docs.stripe.com/invoicing/overview#invoice-statuses
var closedRank = map[string]int{closedUncollectible: 1, closedVoid: 2, closedPaid: 3}

const (
	// mostAttempts bounds an invoice's attempt count; Stripe's own retries end at 8 or so.
	mostAttempts = 100
	// mostInvoices bounds the invoices that a record keeps: those created last. Of older
	// ones nothing depends any more, and what comes of them late is not told.
	mostInvoices = 200
)

// mergeInvoice merges an invoice event into a map of invoices.
func mergeInvoice(invoices *map[string]contracts.Invoice, e Event) change {
	f := e.invoice
	old, known := (*invoices)[f.id]
	if !known && !admit(*invoices, f) {
		return change{}
	}
	now := old
	now.Created = earlier(old.Created, f.created)
	now.First = old.First || f.first
	if f.failed {
		now = failedAgain(now, f, e.at)
	}
	if closedRank[f.closed] > closedRank[old.Closed] {
		now.Closed = f.closed
	}
	if *invoices == nil {
		*invoices = map[string]contracts.Invoice{}
	}
	(*invoices)[f.id] = now
	return change{
		failed:   now.Attempts > old.Attempts && now.Closed == "",
		closed:   f.closed != "",
		attempts: now.Attempts,
	}
}

// failedAgain enters a failed attempt. Events of several may bear the same count, since
// Stripe counts its own retries only; the last one dates it.
// https://docs.stripe.com/api/invoices/object#invoice_object-attempt_count
func failedAgain(i contracts.Invoice, f *invoiceFact, at time.Time) contracts.Invoice {
	switch {
	case f.attempts < i.Attempts:
		if at.After(i.Tries[f.attempts]) {
			i.Tries = tried(i.Tries, f.attempts, at)
		}
	case f.attempts > i.Attempts:
		if i.Attempts > 0 {
			i.Tries = tried(i.Tries, i.Attempts, i.FailedAt)
		}
		i.Attempts, i.NextAttemptAt, i.FailedAt = f.attempts, f.next, at
	case cmp.Or(at.Compare(i.FailedAt), f.next.Compare(i.NextAttemptAt)) > 0:
		i.NextAttemptAt, i.FailedAt = f.next, at
	}
	return i
}

func tried(tries map[int]time.Time, attempt int, at time.Time) map[int]time.Time {
	if tries == nil {
		tries = map[int]time.Time{}
	}
	tries[attempt] = at
	return tries
}

// admit makes room for one more invoice; false: it is older than all that are kept.
func admit(invoices map[string]contracts.Invoice, f *invoiceFact) bool {
	if len(invoices) < mostInvoices {
		return true
	}
	oldest := slices.MinFunc(slices.Collect(maps.Keys(invoices)), func(a, b string) int {
		return cmp.Or(invoices[a].Created.Compare(invoices[b].Created), strings.Compare(a, b))
	})
	if cmp.Or(f.created.Compare(invoices[oldest].Created), strings.Compare(f.id, oldest)) < 0 {
		return false
	}
	delete(invoices, oldest)
	return true
}

// newestPaid is the paid invoice of a subscription that was created last; zero: none.
func newestPaid(s contracts.Subscription) contracts.Invoice {
	var newest contracts.Invoice
	for _, i := range s.Invoices {
		if i.Closed == closedPaid && (newest.Closed == "" || i.Created.After(newest.Created)) {
			newest = i
		}
	}
	return newest
}

// failing counts the failed attempts since the last success, and says when Stripe tries
// next. Those count of invoices that are still open and were created after the newest
// paid one, added up, and of these none that failed before the newest snapshot if that
// says that the subscription is in good standing: Stripe's status goes by the latest
// invoice, and an older one may stay open for ever.
// https://docs.stripe.com/billing/subscriptions/overview#subscription-statuses
func failing(s contracts.Subscription) (attempts int, next time.Time) {
	paid := newestPaid(s)
	good := s.Status == "active" || s.Status == "trialing"
	var last contracts.Invoice
	for _, id := range slices.Sorted(maps.Keys(s.Invoices)) {
		i := s.Invoices[id]
		if i.Closed != "" || paid.Closed != "" && !i.Created.After(paid.Created) {
			continue
		}
		n := i.Attempts
		if good {
			n = i.Attempts - failedBefore(i, s.AsOf)
		}
		attempts += n
		if n > 0 && cmp.Or(i.FailedAt.Compare(last.FailedAt), i.Created.Compare(last.Created)) > 0 {
			last, next = i, i.NextAttemptAt
		}
	}
	return attempts, next
}

// failedBefore is how many of an invoice's attempts failed before a time. Where the
// event of one did not come, it failed before the next that is known.
func failedBefore(i contracts.Invoice, at time.Time) int {
	if i.FailedAt.Before(at) {
		return i.Attempts
	}
	n := 0
	for attempt, failed := range i.Tries {
		if failed.Before(at) {
			n = max(n, attempt)
		}
	}
	return n
}
