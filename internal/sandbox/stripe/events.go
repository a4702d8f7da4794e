package stripe

import (
	"bytes"
	"context"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"
)

// A Version is an API version, by which Stripe renders objects. From basil
// (2025-03-31) on, an invoice names its subscription under "parent" and has no
// "paid", and a subscription's period is that of its items.
type Version string

// One version before basil, that of stripe-go v76, basil itself, and the newest.
const (
	V20231016 Version = "2023-10-16"
	Basil     Version = "2025-03-31.basil"
	Endive    Version = "2026-09-30.endive"
)

// Versions are all three.
func Versions() []Version { return []Version{V20231016, Basil, Endive} }

// An Event is one event, to be rendered by JSON.
type Event struct {
	ID      string // "evt_…"
	Type    string // "invoice.payment_failed"
	Version Version
	Created time.Time // whole seconds
	Object  any       // what changed: a map from Render, or anything JSON
	// Previous is previous_attributes, which only updates have; nil leaves it out.
	Previous map[string]any
	Live     bool   // false: of the test mode
	Account  string // the connected account; empty: the own one
}

// JSON is the event as Stripe sends it. It panics on an Object that is not JSON.
func (e Event) JSON() []byte {
	data := map[string]any{"object": e.Object}
	if e.Previous != nil {
		data["previous_attributes"] = e.Previous
	}
	event := map[string]any{
		"id": e.ID, "object": "event", "type": e.Type, "api_version": e.Version,
		"created": e.Created.Unix(), "livemode": e.Live, "pending_webhooks": 1,
		"request": map[string]any{"id": nil, "idempotency_key": nil}, "data": data,
	}
	if e.Account != "" {
		event["account"] = e.Account
	}
	body, err := json.Marshal(event)
	if err != nil {
		panic(fmt.Sprintf("stripe stand-in: %v", err)) // the caller's mistake
	}
	return body
}

// Sign is Stripe-Signature of a body at a time, with one signature a secret: Stripe
// gives two while a secret is being rolled.
// https://docs.stripe.com/webhooks#verify-manually
func Sign(body []byte, at time.Time, secrets ...string) string {
	header := fmt.Sprintf("t=%d", at.Unix())
	for _, secret := range secrets {
		mac := hmac.New(sha256.New, []byte(secret))
		fmt.Fprintf(mac, "%d.%s", at.Unix(), body)
		header += ",v1=" + hex.EncodeToString(mac.Sum(nil))
	}
	return header
}

// Send posts a body, signed now, once, and gives the HTTP status of the answer. An
// error means that there was none.
func Send(ctx context.Context, client *http.Client, url string, body []byte, secrets ...string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, url, bytes.NewReader(body))
	if err != nil {
		return 0, fmt.Errorf("building a webhook: %w", err)
	}
	req.Header.Set("Content-Type", "application/json; charset=utf-8")
	req.Header.Set("User-Agent", "Stripe/1.0 (+https://stripe.com/docs/webhooks)")
	req.Header.Set("Stripe-Signature", Sign(body, time.Now(), secrets...))
	resp, err := client.Do(req)
	if err != nil {
		return 0, fmt.Errorf("sending a webhook: %w", err)
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 64<<10)) // so that the connection can be used again
	return resp.StatusCode, nil
}

// A Customer is a customer, the same in all versions.
type Customer struct {
	ID, Email, Name, Phone string
	Created                time.Time
	Metadata               map[string]string
}

// Render gives the object.
func (c Customer) Render() map[string]any {
	return map[string]any{
		"id": c.ID, "object": "customer", "livemode": false, "created": unix(c.Created),
		"email": null(c.Email), "name": null(c.Name), "phone": null(c.Phone), "metadata": metadata(c.Metadata),
	}
}

// A Subscription is a subscription to one price.
type Subscription struct {
	ID, Customer           string
	Status                 string // "active", "past_due", …
	Price, Product         string
	Amount                 int64 // of one unit, in minor units
	Quantity               int64 // 0 means 1
	Currency               string
	Interval               string // default "month"
	Created                time.Time
	PeriodStart, PeriodEnd time.Time
	CancelAtPeriodEnd      bool
	CancelAt               time.Time // an end that was set without CancelAtPeriodEnd, as flexible billing does
	CanceledAt, EndedAt    time.Time // zero: null
	CancelReason           string
	LatestInvoice          string
	Metadata               map[string]string
}

// Render gives the object as a version shows it. Zero times and empty references
// are null.
func (s Subscription) Render(v Version) map[string]any {
	interval := s.Interval
	if interval == "" {
		interval = "month"
	}
	item := map[string]any{
		"id": "si_" + strings.TrimPrefix(s.ID, "sub_"), "object": "subscription_item", "created": unix(s.Created),
		"quantity": max(1, s.Quantity), "subscription": s.ID,
		"price": map[string]any{
			"id": s.Price, "object": "price", "product": s.Product, "unit_amount": s.Amount,
			"currency": s.Currency, "type": "recurring", "active": true,
			"recurring": map[string]any{"interval": interval, "interval_count": 1, "usage_type": "licensed"},
		},
	}
	o := map[string]any{
		"id": s.ID, "object": "subscription", "livemode": false, "created": unix(s.Created),
		"customer": s.Customer, "status": s.Status, "currency": s.Currency,
		"cancel_at_period_end": s.CancelAtPeriodEnd, "cancel_at": nil,
		"canceled_at": unix(s.CanceledAt), "ended_at": unix(s.EndedAt),
		"cancellation_details": map[string]any{"reason": null(s.CancelReason), "comment": nil, "feedback": nil},
		"collection_method":    "charge_automatically", "latest_invoice": null(s.LatestInvoice),
		"start_date": unix(s.Created), "trial_end": nil, "pause_collection": nil, "metadata": metadata(s.Metadata),
		"items": map[string]any{"object": "list", "has_more": false, "total_count": 1,
			"url": "/v1/subscription_items?subscription=" + s.ID, "data": []any{item}},
	}
	switch {
	case s.CancelAtPeriodEnd:
		o["cancel_at"] = unix(s.PeriodEnd)
	case !s.CancelAt.IsZero():
		o["cancel_at"] = unix(s.CancelAt)
	}
	period := o
	if v != V20231016 {
		period = item
	}
	period["current_period_start"], period["current_period_end"] = unix(s.PeriodStart), unix(s.PeriodEnd)
	return o
}

// An Invoice is an invoice of a subscription, or, without one, by itself.
type Invoice struct {
	ID, Customer           string
	Email, Name, Phone     string // of the customer, as frozen on the invoice
	Subscription           string
	SubscriptionMetadata   map[string]string
	BillingReason          string // default "subscription_cycle"
	Status                 string // "open", "paid", "void", …
	Currency               string
	AmountDue, AmountPaid  int64 // minor units
	AttemptCount           int
	NextAttempt            time.Time // zero: null, no further automatic attempt
	Created                time.Time
	FinalizedAt            time.Time // default Created: when the customer's data were copied
	PeriodStart, PeriodEnd time.Time
	HostedURL              string
}

// Render gives the object as a version shows it. Zero times and empty references
// are null.
func (i Invoice) Render(v Version) map[string]any {
	reason := i.BillingReason
	if reason == "" {
		reason = "subscription_cycle"
	}
	line := map[string]any{
		"id": "il_" + strings.TrimPrefix(i.ID, "in_"), "object": "line_item", "amount": i.AmountDue, "currency": i.Currency,
		"period": map[string]any{"start": unix(i.PeriodStart), "end": unix(i.PeriodEnd)},
	}
	o := map[string]any{
		"id": i.ID, "object": "invoice", "livemode": false, "created": unix(i.Created),
		"customer": i.Customer, "customer_email": null(i.Email), "customer_name": null(i.Name), "customer_phone": null(i.Phone),
		"billing_reason": reason, "collection_method": "charge_automatically", "status": i.Status, "currency": i.Currency,
		"amount_due": i.AmountDue, "amount_paid": i.AmountPaid, "amount_remaining": i.AmountDue - i.AmountPaid, "total": i.AmountDue,
		"attempt_count": i.AttemptCount, "attempted": i.AttemptCount > 0, "next_payment_attempt": unix(i.NextAttempt),
		"period_start": unix(i.PeriodStart), "period_end": unix(i.PeriodEnd),
		"hosted_invoice_url": null(i.HostedURL), "metadata": map[string]string{},
		"lines": map[string]any{"object": "list", "has_more": false, "total_count": 1,
			"url": "/v1/invoices/" + i.ID + "/lines", "data": []any{line}},
	}
	finalized := i.FinalizedAt
	if finalized.IsZero() {
		finalized = i.Created
	}
	o["status_transitions"] = map[string]any{"finalized_at": unix(finalized), "marked_uncollectible_at": nil, "paid_at": nil, "voided_at": nil}
	details := map[string]any{"metadata": metadata(i.SubscriptionMetadata)}
	switch {
	case v == V20231016:
		o["paid"], o["subscription"], line["subscription"] = i.Status == "paid", null(i.Subscription), null(i.Subscription)
		o["subscription_details"], o["charge"], o["payment_intent"] = details, nil, nil
	case i.Subscription == "":
		o["parent"] = nil
	default:
		details["subscription"] = i.Subscription
		o["parent"] = map[string]any{"type": "subscription_details", "quote_details": nil, "subscription_details": details}
		line["parent"] = map[string]any{"type": "subscription_item_details", "invoice_item_details": nil,
			"subscription_item_details": map[string]any{"subscription": i.Subscription,
				"subscription_item": "si_" + strings.TrimPrefix(i.Subscription, "sub_")}}
	}
	return o
}

// A Checkout is a checkout session that was completed, the same in all versions as
// far as we read it.
type Checkout struct {
	ID, Customer, Subscription string
	Email, Name, Phone         string // what the customer typed
	ClientReferenceID          string // where we put the lead's id
	PaymentStatus              string // default "paid"
	Amount                     int64  // minor units
	Currency                   string
	Created                    time.Time
	Metadata                   map[string]string
}

// Render gives the object.
func (c Checkout) Render() map[string]any {
	status, mode := c.PaymentStatus, "subscription"
	if status == "" {
		status = "paid"
	}
	if c.Subscription == "" {
		mode = "payment"
	}
	return map[string]any{
		"id": c.ID, "object": "checkout.session", "livemode": false, "created": unix(c.Created),
		"mode": mode, "status": "complete", "payment_status": status, "url": nil,
		"customer": null(c.Customer), "subscription": null(c.Subscription), "client_reference_id": null(c.ClientReferenceID),
		"customer_email":   nil,
		"customer_details": map[string]any{"email": null(c.Email), "name": null(c.Name), "phone": null(c.Phone)},
		"amount_total":     c.Amount, "currency": c.Currency, "metadata": metadata(c.Metadata),
	}
}

func unix(t time.Time) any {
	if t.IsZero() {
		return nil
	}
	return t.Unix()
}

func null(s string) any {
	if s == "" {
		return nil
	}
	return s
}

// metadata is never null at Stripe.
func metadata(m map[string]string) map[string]string {
	if m == nil {
		return map[string]string{}
	}
	return m
}
