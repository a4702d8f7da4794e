package billing

import (
	"encoding/json"
	"errors"
	"math/big"
	"strings"

	"leadpipe/contracts"
)

type subscriptionFact struct {
	rank   int
	state  contracts.SubscriptionState
	before *contracts.SubscriptionState
}

// Snapshots' ranks.
const (
	rankCreated = 1 + iota
	rankUpdated
	rankDeleted
)

type subscriptionObject struct {
	ID                string  `json:"id"`
	Customer          ref     `json:"customer"`
	Status            string  `json:"status"`
	Currency          string  `json:"currency"`
	CancelAtPeriodEnd bool    `json:"cancel_at_period_end"`
	CancelAt          stamp   `json:"cancel_at"`
	CurrentPeriodEnd  stamp   `json:"current_period_end"` // before 2025-03-31
	CanceledAt        stamp   `json:"canceled_at"`
	EndedAt           stamp   `json:"ended_at"`
	Metadata          leadIDs `json:"metadata"`
	Cancellation      struct {
		Reason string `json:"reason"`
	} `json:"cancellation_details"`
	Items struct {
		Data []itemObject `json:"data"`
	} `json:"items"`
}

type itemObject struct {
	Deleted          bool   `json:"deleted"`
	Quantity         *int64 `json:"quantity"`
	CurrentPeriodEnd stamp  `json:"current_period_end"` // since 2025-03-31, and beside the other a while before
	Price            struct {
		ID                string      `json:"id"`
		Product           ref         `json:"product"`
		BillingScheme     string      `json:"billing_scheme"`
		UnitAmount        *int64      `json:"unit_amount"`
		UnitAmountDecimal json.Number `json:"unit_amount_decimal"`
		Currency          string      `json:"currency"`
		TransformQuantity *struct {
			DivideBy int64  `json:"divide_by"`
			Round    string `json:"round"`
		} `json:"transform_quantity"`
		Recurring struct {
			Interval      string `json:"interval"`
			IntervalCount int    `json:"interval_count"`
			UsageType     string `json:"usage_type"`
		} `json:"recurring"`
	} `json:"price"`
}

func (e *Event) readSubscription(object json.RawMessage, previous map[string]any, rank int) error {
	o, state, err := readState(object)
	if err != nil {
		return err
	}
	if !contracts.ValidID(o.ID) || !contracts.ValidID(string(o.Customer)) {
		return malformed("reading the subscription", errors.New("no id, or no customer"))
	}
	e.about.customer, e.about.subscription, e.about.metadata = string(o.Customer), o.ID, o.Metadata.ids()
	if rank == rankDeleted {
		state.Status = endedAs(state.Status)
	}
	e.sub = &subscriptionFact{rank: rank, state: state}
	if len(previous) == 0 {
		return nil
	}
	var whole map[string]any
	if err := json.Unmarshal(object, &whole); err != nil {
		return malformed("reading the subscription", err)
	}
	overlay(whole, previous)
	old, err := json.Marshal(whole)
	if err != nil {
		return malformed("reading previous_attributes", err)
	}
	// What it was before only helps to order events of one second; if it can't be read,
	// they are ordered without it.
	if _, before, err := readState(old); err == nil {
		e.sub.before = &before
	}
	return nil
}

// readState takes from a subscription what we keep of it.
func readState(object json.RawMessage) (subscriptionObject, contracts.SubscriptionState, error) {
	var o subscriptionObject
	if err := json.Unmarshal(object, &o); err != nil {
		return o, contracts.SubscriptionState{}, malformed("reading the subscription", err)
	}
	s := contracts.SubscriptionState{
		Status: o.Status, Currency: o.Currency, CancelAt: o.CancelAt.time(),
		// Flexible billing, the default of new subscriptions, tells of a cancellation by
		// cancel_at alone; to people an end is an end.
		// https://docs.stripe.com/billing/subscriptions/billing-mode
		CancelAtPeriodEnd: o.CancelAtPeriodEnd || o.CancelAt != 0,
		CanceledAt:        o.CanceledAt.time(), EndedAt: o.EndedAt.time(), CancelReason: o.Cancellation.Reason,
	}
	if s.Status == "" {
		return o, s, malformed("reading the subscription", errors.New("no status"))
	}
	var end stamp
	var items []contracts.SubscriptionItem
	for _, i := range o.Items.Data {
		if i.Deleted {
			continue
		}
		end = max(end, i.CurrentPeriodEnd)
		if len(items) == 0 {
			s.PriceID, s.ProductID = i.Price.ID, string(i.Price.Product)
			s.Currency = firstOf(i.Price.Currency, s.Currency)
		}
		amount, err := i.amount()
		if err != nil {
			return o, s, malformed("reading the subscription", err)
		}
		items = append(items, contracts.SubscriptionItem{PriceID: i.Price.ID, ProductID: string(i.Price.Product), Quantity: i.quantity(),
			Amount: amount, Interval: i.Price.Recurring.Interval, IntervalCount: i.Price.Recurring.IntervalCount})
	}
	if err := total(&s, items); err != nil {
		return o, s, malformed("reading the subscription", err)
	}
	if end == 0 {
		end = o.CurrentPeriodEnd
	}
	s.CurrentPeriodEnd = end.time()
	s.Currency = strings.ToLower(s.Currency)
	return o, s, nil
}

// total sums a subscription's items up, unless they have different intervals or one of
// them costs what nobody knows yet. Several items are listed.
func total(s *contracts.SubscriptionState, items []contracts.SubscriptionItem) error {
	if len(items) == 0 {
		return nil
	}
	s.Interval, s.IntervalCount = items[0].Interval, items[0].IntervalCount
	if len(items) > 1 {
		s.Items = items
	}
	sum := int64(0)
	known := true
	for _, i := range items {
		if i.Interval != s.Interval || i.IntervalCount != s.IntervalCount {
			s.Interval, s.IntervalCount = "", 0
			return nil
		}
		known = known && i.Amount != nil
		if !known {
			continue
		}
		if sum += *i.Amount; !inRange(sum) {
			return errAmount
		}
	}
	if known {
		s.Amount = &sum
	}
	return nil
}

func (i itemObject) quantity() int64 {
	switch {
	case i.Quantity != nil:
		return *i.Quantity
	case i.Price.Recurring.UsageType == "metered":
		return 0
	}
	return 1
}

// amount is what an item costs a period, before discounts, in minor units; nil: that
// depends on what will be used, or on a table of tiers which the event does not show.
//
// https://docs.stripe.com/api/prices/object
// https://docs.stripe.com/products-prices/pricing-models#tiered-pricing
func (i itemObject) amount() (*int64, error) {
	p := i.Price
	if p.Recurring.UsageType == "metered" || p.BillingScheme == "tiered" {
		return nil, nil
	}
	unit := new(big.Rat)
	switch {
	case p.UnitAmount != nil:
		unit.SetInt64(*p.UnitAmount)
	case p.UnitAmountDecimal != "":
		// As the API writes it: digits and a point. An exponent could be a number of any size.
		if len(p.UnitAmountDecimal) > 40 || strings.ContainsAny(string(p.UnitAmountDecimal), "eE") {
			return nil, errAmount
		}
		if _, ok := unit.SetString(string(p.UnitAmountDecimal)); !ok {
			return nil, errAmount
		}
	default:
		return nil, nil
	}
	quantity := i.quantity()
	// Sold by the package: 5 packages of 100 for 450 to 500 units.
	// https://docs.stripe.com/api/prices/object#price_object-transform_quantity
	if t := p.TransformQuantity; t != nil && t.DivideBy > 0 {
		whole, rest := quantity/t.DivideBy, quantity%t.DivideBy
		if quantity = whole; rest > 0 && t.Round == "up" {
			quantity++
		}
	}
	product := unit.Mul(unit, new(big.Rat).SetInt64(quantity))
	sum, ok := round(product)
	if !ok {
		return nil, errAmount
	}
	return &sum, nil
}

var errAmount = errors.New("an amount out of range")

// round gives the nearest whole number, halves away from zero.
func round(r *big.Rat) (int64, bool) {
	half := big.NewRat(1, 2)
	if r.Sign() < 0 {
		half.Neg(half)
	}
	r = new(big.Rat).Add(r, half)
	n := new(big.Int).Quo(r.Num(), r.Denom())
	return n.Int64(), n.IsInt64() && inRange(n.Int64())
}

// inRange says whether an amount is one of this world, and survives every JSON reader.
func inRange(n int64) bool { return n > -1<<53 && n < 1<<53 }
