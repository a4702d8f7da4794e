package billing

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math"
	"slices"
	"strings"
	"sync"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/outcome"
	"leadpipe/internal/phone"
	"leadpipe/internal/state"
	"leadpipe/internal/text"
)

// DefaultPaymentFailed is the text after a failed payment unless the operator words
// another. It has only letters of the GSM alphabet.
const DefaultPaymentFailed = `Bonjour, votre paiement de {{.Amount}} n'a pas abouti.{{with .URL}} Vous pouvez le régler ici : {{.}}{{end}} Répondez STOP pour ne plus recevoir de SMS.`

// A PaymentFailed is what the text after a failed payment may say.
type PaymentFailed struct {
	Name          string    // the customer's, as Stripe has it; may be empty
	Amount        string    // what is due: "29,00 €"
	URL           string    // Stripe's page where it can be paid; may be empty
	Attempt       int       // from 1
	NextAttemptAt time.Time // zero: no further automatic attempt
}

// ParsePaymentFailed reads the text's template, over a PaymentFailed; empty means
// DefaultPaymentFailed. An error names SMS_PAYMENT_FAILED_TEXT.
func ParsePaymentFailed(template string) (*text.Template, error) {
	if template == "" {
		template = DefaultPaymentFailed
	}
	return text.Parse("SMS_PAYMENT_FAILED_TEXT", template,
		PaymentFailed{Name: "Zoé Martin", Amount: "29,00 €", URL: "https://invoice.example.com/i/1", Attempt: 1, NextAttemptAt: time.Unix(1795615392, 0).UTC()},
		PaymentFailed{Amount: "29,00 €", Attempt: 4})
}

// Options are what the consumer needs; all but Reader are required.
type Options struct {
	SuspendAfter  int            // failed attempts on one invoice before access is suspended
	Region        string         // of phone numbers without a prefix: "FR"
	SMSMaxAge     time.Duration  // from the failure to the last moment at which its text may be sent
	PaymentFailed *text.Template // see ParsePaymentFailed

	// Reader asks Stripe which of several snapshots of one second is the newest, when
	// the events do not tell; nil: the greatest event id is taken to be.
	Reader Reader
}

// A Reader reads from Stripe.
type Reader interface {
	// Subscription gives a subscription as it is now, as Stripe's JSON. nil and no
	// error: Stripe does not have it, or does not show it to us. An error: ask later.
	Subscription(ctx context.Context, id string) (json.RawMessage, error)
}

// askAgain is when an event comes back whose place only Stripe can tell.
const askAgain = time.Second

// Billing is the consumer of webhooks.stripe.>. It is safe for concurrent use.
type Billing struct {
	opt   Options
	rules rules
	ask   sync.Map // event id → true: Stripe is to be asked when it comes again
}

// New checks the options. It starts nothing.
func New(opt Options) (*Billing, error) {
	if opt.SuspendAfter < 1 || opt.Region == "" || opt.SMSMaxAge <= 0 || opt.PaymentFailed == nil {
		return nil, errors.New("billing: an option is missing")
	}
	return &Billing{opt: opt, rules: rules{suspendAfter: opt.SuspendAfter, region: opt.Region}}, nil
}

// Prepare decodes an event, and for one whose place among others of the same second
// could not be told reads its subscription from Stripe. It writes nothing. Errors are
// outcomes: permanent for an event that can't be read, or that tells of a payment by
// nobody; temporary when Stripe can't be asked now. An event of a type that changes
// nothing is no error.
func (b *Billing) Prepare(ctx context.Context, m contracts.Message) (Event, error) {
	e, err := decode(m.Data)
	if err != nil || e.sub == nil || b.opt.Reader == nil {
		return e, err
	}
	if _, ok := b.ask.Load(e.id); !ok {
		return e, nil
	}
	object, err := b.opt.Reader.Subscription(ctx, e.about.subscription)
	if err != nil {
		return Event{}, err
	}
	b.ask.Delete(e.id)
	e.asked = true
	if object != nil {
		// An answer that can't be read settles nothing, as if there were none.
		if _, s, err := readState(object); err == nil {
			e.reading = &s
		}
	}
	return e, nil
}

// Decide merges an event into the records: the customer, its subscription, the ends
// of its subscriptions, its leads, and a text if a payment has failed. nil: done. An
// error is NotYet where Stripe has to be asked first, permanent where the text's
// template fails; others are the transaction's.
func (b *Billing) Decide(tx *state.Tx, e Event) error {
	if e.about.customer == "" {
		return nil
	}
	k, err := load(tx, e.about)
	if err != nil {
		return err
	}
	before := k.customer
	ch := b.rules.apply(&k, e)
	if ch.undecided && b.opt.Reader != nil && e.sub != nil && !e.asked {
		b.ask.Store(e.id, true)
		return outcome.NotYet(askAgain)
	}
	if err := save(tx, before, k, e.about.subscription); err != nil {
		return err
	}
	switch {
	case ch.failed:
		return b.text(tx, k.customer.ID, e)
	case ch.closed:
		return suppress(tx, e.invoice.id, ch.attempts)
	}
	return nil
}

// load reads the customer that an event is about and all its subscriptions.
func load(tx *state.Tx, who about) (book, error) {
	k := book{subs: map[string]contracts.Subscription{}}
	need := []string{contracts.KeyCustomer(who.customer)}
	if who.subscription != "" {
		need = append(need, contracts.KeySubscription(who.subscription))
	}
	if err := tx.Need(need...); err != nil {
		return k, err
	}
	var err error
	if k.customer, _, err = state.Get[contracts.Customer](tx, need[0]); err != nil {
		return k, err
	}
	ids := k.customer.Subscriptions
	if who.subscription != "" {
		ids = with(ids, who.subscription)
	}
	need = need[:0]
	for _, id := range ids {
		need = append(need, contracts.KeySubscription(id))
	}
	if err := tx.Need(need...); err != nil {
		return k, err
	}
	for _, id := range ids {
		s, ok, err := state.Get[contracts.Subscription](tx, contracts.KeySubscription(id))
		if err != nil {
			return k, err
		}
		if ok {
			k.subs[id] = s
		}
	}
	return k, nil
}

// save writes what an event changed: the one subscription, the customer, and the
// ends. Leads are looked at only when something changed that they depend on.
func save(tx *state.Tx, before contracts.Customer, k book, subscription string) error {
	if s, ok := k.subs[subscription]; ok {
		if err := tx.Put(contracts.KeySubscription(s.ID), s); err != nil {
			return err
		}
	}
	for _, c := range k.churns() {
		if err := tx.Put(contracts.KeyChurn(c.SubscriptionID), c); err != nil {
			return err
		}
	}
	c := k.customer
	if before.ID != "" && before.Status == c.Status && before.Since.IsZero() == c.Since.IsZero() && before.LeadRef == c.LeadRef &&
		slices.Equal(before.Emails, c.Emails) && slices.Equal(before.Phones, c.Phones) {
		return tx.Put(contracts.KeyCustomer(c.ID), c)
	}
	return identity.SetCustomer(tx, c)
}

// text queues the text that tells of a failed payment. There is none for the first
// payment of a subscription, at which the customer is sitting before the form; nor to
// a number that takes no texts or has opted out.
func (b *Billing) text(tx *state.Tx, customer string, e Event) error {
	f := e.invoice
	if f.reason == "subscription_create" && f.attempts <= 1 {
		return nil
	}
	c, _, err := state.Get[contracts.Customer](tx, contracts.KeyCustomer(customer)) // with its lead
	if err != nil {
		return err
	}
	to, err := phone.Textable(c.Phone, b.opt.Region)
	if err != nil && c.LeadID != "" {
		lead, _, err := state.Get[contracts.Lead](tx, contracts.KeyLead(c.LeadID))
		if err != nil {
			return err
		}
		if lead.PhoneIssue == "" && lead.Phone != "" {
			to = phone.Number(lead.Phone)
		}
	}
	if to == "" || !to.Mobile() {
		return nil
	}
	cause := fmt.Sprintf("%s.%d", f.id, f.attempts)
	key := contracts.KeySMS(contracts.SMSPaymentFailed, cause)
	if err := tx.Need(key, contracts.KeyContact(to.Digits()), contracts.KeyOptOut(to.Digits())); err != nil {
		return err
	}
	contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(to.Digits()))
	if err != nil {
		return err
	}
	// An operator's opt-out stands in its own record only.
	out, ok, err := state.Get[contracts.OptOut](tx, contracts.KeyOptOut(to.Digits()))
	if err != nil {
		return err
	}
	if !contact.OptedOutAt.IsZero() || ok && (contact.OptedInAt.IsZero() || out.OptedOutAt.After(contact.OptedInAt)) {
		return nil
	}
	_, queued, err := state.Get[contracts.SMS](tx, key)
	if err != nil || queued { // the records were wiped, this one was kept
		return err
	}
	body, err := b.opt.PaymentFailed.Render(PaymentFailed{
		Name: c.Name, Amount: amount(f.amount, f.currency), URL: f.url, Attempt: f.attempts, NextAttemptAt: f.next})
	if err != nil {
		return outcome.Permanent(outcome.Malformed, err)
	}
	return tx.Put(key, contracts.SMS{
		Kind: contracts.SMSPaymentFailed, To: string(to), Body: body, Status: contracts.SMSQueued,
		QueuedAt: e.at, ExpiresAt: e.at.Add(b.opt.SMSMaxAge), Cause: cause, LeadID: c.LeadID,
	})
}

// suppress takes back texts on an invoice that are not on their way yet.
func suppress(tx *state.Tx, invoice string, attempts int) error {
	var keys []string
	for n := range attempts {
		keys = append(keys, contracts.KeySMS(contracts.SMSPaymentFailed, fmt.Sprintf("%s.%d", invoice, n+1)))
	}
	if err := tx.Need(keys...); err != nil {
		return err
	}
	for _, key := range keys {
		sms, _, err := state.Get[contracts.SMS](tx, key)
		if err != nil {
			return err
		}
		if sms.Status != contracts.SMSQueued {
			continue
		}
		sms.Status, sms.Error = contracts.SMSSuppressed, "invoice closed"
		if err := tx.Put(key, sms); err != nil {
			return err
		}
	}
	return nil
}

// decimals of currencies that do not have two.
// https://docs.stripe.com/currencies#zero-decimal
var decimals = map[string]int{
	"bif": 0, "clp": 0, "djf": 0, "gnf": 0, "jpy": 0, "kmf": 0, "krw": 0, "mga": 0, "pyg": 0, "rwf": 0, "vnd": 0, "vuv": 0,
	"xaf": 0, "xof": 0, "xpf": 0, "bhd": 3, "jod": 3, "kwd": 3, "omr": 3, "tnd": 3,
}

var symbols = map[string]string{"eur": "€", "usd": "$", "gbp": "£"}

// amount writes minor units as people in France read them: "1 234,50 €".
func amount(minor int64, currency string) string {
	places, ok := decimals[currency]
	if !ok {
		places = 2
	}
	unit := int64(math.Pow10(places))
	sign := ""
	if minor < 0 {
		sign, minor = "-", -minor
	}
	whole := fmt.Sprint(minor / unit)
	for i := len(whole) - 3; i > 0; i -= 3 {
		whole = whole[:i] + " " + whole[i:]
	}
	if places > 0 {
		whole += fmt.Sprintf(",%0*d", places, minor%unit)
	}
	symbol, ok := symbols[currency]
	if !ok {
		symbol = strings.ToUpper(currency)
	}
	return strings.TrimSpace(sign + whole + " " + symbol)
}
