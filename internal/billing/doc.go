// Package billing turns Stripe's events into customers, subscriptions and the ends of
// subscriptions, and queues a text when a payment has failed.
//
// Stripe promises neither order nor single delivery, and dates events by the second.
// So no event is a step: each adds facts to records, and the facts are merged so that
// every order and repetition ends in the same records (merge.go, which does no I/O).
// What people look at, status and access, is computed from the merged facts.
//
// https://docs.stripe.com/webhooks#event-ordering
package billing
