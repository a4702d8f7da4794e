package billing

import (
	"encoding/json"
	"errors"

	"leadpipe/contracts"
)

// readCustomer reads the object in which Stripe keeps a customer's phone, e-mail, name
// and metadata.
// https://docs.stripe.com/api/customers/object
func (e *Event) readCustomer(object json.RawMessage, previous map[string]any, eventType string) error {
	var o struct {
		ID       string  `json:"id"`
		Email    string  `json:"email"`
		Name     string  `json:"name"`
		Phone    string  `json:"phone"`
		Metadata leadIDs `json:"metadata"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return malformed("reading the customer", err)
	}
	if !contracts.ValidID(o.ID) {
		return malformed("reading the customer", errors.New("no id"))
	}
	e.about.customer, e.about.metadata = o.ID, o.Metadata.ids()
	if eventType == "customer.deleted" {
		e.deleted = true // what it says of the customer is as old as may be
		return nil
	}
	e.about.email, e.about.name, e.about.phone = o.Email, o.Name, o.Phone
	e.about.rank = rankCustomerCreated
	if eventType == "customer.updated" {
		e.about.rank = rankCustomerUpdated
	}
	for _, field := range []string{"email", "name", "phone"} {
		if was, _ := previous[field].(string); was != "" {
			e.about.emptied = append(e.about.emptied, field) // if it is empty now
		}
	}
	return nil
}

// readCheckout reads a session that was completed, or whose payment came through or
// back later. A buyer for whom Stripe made no customer (a guest) goes by the session.
// https://docs.stripe.com/payments/checkout/guest-customers
func (e *Event) readCheckout(object json.RawMessage, eventType string) error {
	var o struct {
		ID            string  `json:"id"`
		Customer      ref     `json:"customer"`
		Subscription  ref     `json:"subscription"`
		Mode          string  `json:"mode"`
		PaymentStatus string  `json:"payment_status"`
		Reference     string  `json:"client_reference_id"`
		Metadata      leadIDs `json:"metadata"`
		Email         string  `json:"customer_email"`
		Details       struct {
			Email string `json:"email"`
			Name  string `json:"name"`
			Phone string `json:"phone"`
		} `json:"customer_details"`
	}
	if err := json.Unmarshal(object, &o); err != nil {
		return malformed("reading the checkout session", err)
	}
	switch {
	case eventType == "checkout.session.async_payment_failed":
	case eventType == "checkout.session.async_payment_succeeded":
		e.paid = true
	case o.PaymentStatus == "paid":
		e.paid = true
	case o.PaymentStatus == "no_payment_required": // a trial, or all of it off; but also a card that is only stored
		e.paid = o.Mode != "setup"
	}
	if o.Customer == "" {
		if o.Mode != "payment" {
			return nil // nobody, and nothing was bought
		}
		o.Customer = ref(o.ID)
	}
	if !contracts.ValidID(string(o.Customer)) || o.Subscription != "" && !contracts.ValidID(string(o.Subscription)) {
		return malformed("reading the checkout session", errors.New("an id that can't be one"))
	}
	e.about = about{customer: string(o.Customer), subscription: string(o.Subscription), phone: o.Details.Phone, name: o.Details.Name,
		email: firstOf(o.Details.Email, o.Email), asOf: e.at, rank: rankCheckout, metadata: o.Metadata.ids()}
	if contracts.ValidID(o.Reference) {
		e.about.reference = o.Reference
	}
	return nil
}
