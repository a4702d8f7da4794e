package billing

import (
	"encoding/json"
	"errors"
	"strings"
	"time"

	"leadpipe/contracts"
)

type invoiceFact struct {
	id, closed    string
	created       time.Time
	first         bool // a subscription begins with it
	failed        bool
	attempts      int
	next          time.Time
	amount        int64 // still due
	currency, url string
}

func (e *Event) readInvoice(object json.RawMessage, eventType string) error {
	var o struct {
		ID              string `json:"id"`
		Customer        ref    `json:"customer"`
		Email           string `json:"customer_email"`
		Name            string `json:"customer_name"`
		Phone           string `json:"customer_phone"`
		Created         stamp  `json:"created"`
		BillingReason   string `json:"billing_reason"`
		AttemptCount    int    `json:"attempt_count"`
		NextAttempt     stamp  `json:"next_payment_attempt"`
		AmountDue       int64  `json:"amount_due"`
		AmountRemaining *int64 `json:"amount_remaining"`
		Currency        string `json:"currency"`
		URL             string `json:"hosted_invoice_url"`
		Subscription    ref    `json:"subscription"` // before 2025-03-31
		Transitions     struct {
			FinalizedAt stamp `json:"finalized_at"`
		} `json:"status_transitions"`
		Details struct {
			Metadata leadIDs `json:"metadata"`
		} `json:"subscription_details"` // before 2025-03-31
		Parent struct {
			Details struct {
				Subscription ref     `json:"subscription"`
				Metadata     leadIDs `json:"metadata"`
			} `json:"subscription_details"`
		} `json:"parent"`
		Lines struct {
			Data []struct {
				Subscription ref `json:"subscription"` // before 2025-03-31
				Parent       struct {
					Item struct {
						Subscription ref `json:"subscription"`
					} `json:"subscription_item_details"`
					Invoice struct {
						Subscription ref `json:"subscription"`
					} `json:"invoice_item_details"`
				} `json:"parent"`
			} `json:"data"`
		} `json:"lines"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return malformed("reading the invoice", err)
	}
	sub := firstOf(o.Subscription, o.Parent.Details.Subscription)
	for _, l := range o.Lines.Data {
		sub = firstOf(sub, l.Subscription, l.Parent.Item.Subscription, l.Parent.Invoice.Subscription)
	}
	if !contracts.ValidID(o.ID) || !contracts.ValidID(string(o.Customer)) || sub != "" && !contracts.ValidID(string(sub)) {
		return malformed("reading the invoice", errors.New("no id, or no customer"))
	}
	if o.AttemptCount < 0 || o.AttemptCount > mostAttempts {
		return malformed("reading the invoice", errors.New("an attempt count out of range"))
	}
	// What an invoice says of its customer is a copy that was made when it was finalized.
	// https://docs.stripe.com/api/invoices/object#invoice_object-customer_phone
	asOf := firstOf(o.Transitions.FinalizedAt, o.Created).time()
	if asOf.IsZero() {
		asOf = e.at
	}
	e.about = about{customer: string(o.Customer), subscription: string(sub), email: o.Email, phone: o.Phone, name: o.Name,
		asOf: asOf, rank: rankInvoice, metadata: append(o.Details.Metadata.ids(), o.Parent.Details.Metadata.ids()...)}
	created := o.Created.time()
	if created.IsZero() {
		created = e.at
	}
	f := &invoiceFact{id: o.ID, created: created, first: o.BillingReason == "subscription_create",
		attempts: o.AttemptCount, amount: o.AmountDue, currency: strings.ToLower(o.Currency), url: o.URL}
	if o.AmountRemaining != nil {
		f.amount = *o.AmountRemaining
	}
	// The event's type says what happened; a rendering may be older or newer than it.
	switch eventType {
	case "invoice.paid", "invoice.payment_succeeded":
		f.closed, e.paid = closedPaid, true
	case "invoice.voided":
		f.closed = closedVoid
	case "invoice.marked_uncollectible":
		f.closed = closedUncollectible
	default:
		f.failed, f.attempts, f.next = true, max(1, o.AttemptCount), o.NextAttempt.time()
	}
	e.invoice = f
	return nil
}
