package billing

import (
	"context"
	"encoding/json"
	"errors"
	"slices"
	"sync"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/identity"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
	"leadpipe/internal/text"
)

// DefaultPaymentFailed is the text after a failed payment unless the operator words
// another. It has only letters of the GSM alphabet.
const DefaultPaymentFailed = `{{with .Company}}{{.}} : {{end}}Bonjour, votre paiement de {{.Amount}} n'a pas abouti.{{with .URL}} Vous pouvez le régler ici : {{.}}{{end}} Répondez STOP pour ne plus recevoir de SMS.`

// A PaymentFailed is what the text after a failed payment may say.
type PaymentFailed struct {
	Name          string    // the customer's, as Stripe has it; may be empty
	Amount        string    // what is due: "29,00 €"
	URL           string    // Stripe's page where it can be paid; may be empty
	Attempt       int       // from 1
	NextAttemptAt time.Time // zero: no further automatic attempt
	Company       string    // COMPANY_NAME; may be empty
}

// ParsePaymentFailed reads the text's template, over a PaymentFailed; empty means
// DefaultPaymentFailed. An error names SMS_PAYMENT_FAILED_TEXT.
func ParsePaymentFailed(template string) (*text.Template, error) {
	if template == "" {
		template = DefaultPaymentFailed
	}
	return text.Parse("SMS_PAYMENT_FAILED_TEXT", template,
		PaymentFailed{Name: "Zoé Martin", Amount: "29,00 €", URL: "https://invoice.example.com/i/1", Attempt: 1, NextAttemptAt: time.Unix(1795615392, 0).UTC(),
			Company: "Atelier Martin"},
		PaymentFailed{Amount: "29,00 €", Attempt: 4})
}

// Options are what the consumer needs; all but Company and Reader are required.
type Options struct {
	SuspendAfter  int            // failed attempts since the last success before access is suspended
	Region        string         // of phone numbers without a prefix: "FR"
	SMSMaxAge     time.Duration  // from the failure to the last moment at which its text may be sent
	PaymentFailed *text.Template // see ParsePaymentFailed
	Company       string         // who writes; may be empty

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
// outcomes: permanent for an event that can't be read; temporary when Stripe can't be
// asked now. An event of a type that changes nothing is no error.
func (b *Billing) Prepare(ctx context.Context, m contracts.Message) (Event, error) {
	e, err := decode(m.Data)
	e.message = contracts.Message{Stream: m.Stream, Subject: m.Subject, Sequence: m.Sequence}
	if _, ok := b.ask.Load(e.id); err != nil || !ok {
		return e, err
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
// error is NotYet where Stripe has to be asked first; others are the transaction's.
func (b *Billing) Decide(tx *state.Tx, e Event) error {
	if e.about.customer == "" {
		return nil
	}
	if err := tx.Need(e.keys()...); err != nil {
		return err
	}
	accounts, ready, err := b.account(tx, e)
	if err != nil || !ready {
		return err
	}
	k, counts, err := load(tx, e)
	if err != nil || !counts {
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
	case ch.failed && accounts.first(e):
		return b.text(tx, k.customer.ID, e)
	case ch.closed:
		return suppress(tx, e.invoice.id, ch.attempts)
	}
	return nil
}

// keys are those of the records that most events of its kind come to read.
func (e Event) keys() []string {
	keys := []string{contracts.KeyStripe, contracts.KeyCustomer(e.about.customer)}
	if e.about.subscription != "" {
		keys = append(keys, contracts.KeySubscription(e.about.subscription))
	}
	if e.invoice != nil && e.invoice.closed != "" {
		keys = append(keys, keysOfTexts(e.invoice.id, e.invoice.attempts-1)...) // the last one succeeded
	}
	return keys
}

// load reads the customer that an event is about and all its subscriptions. Ids of test
// and live mode never meet at Stripe; where they do (a fixture sent with the wrong mode),
// the world that counts has the record, and counts is false for an event of the other.
func load(tx *state.Tx, e Event) (k book, counts bool, err error) {
	who := e.about
	k = book{subs: map[string]contracts.Subscription{}}
	need := []string{contracts.KeyCustomer(who.customer)}
	if who.subscription != "" {
		need = append(need, contracts.KeySubscription(who.subscription))
	}
	if err := tx.Need(need...); err != nil {
		return k, false, err
	}
	stored, ok, err := state.Get[contracts.Customer](tx, need[0])
	if err != nil {
		return k, false, err
	}
	switch was := identity.Of(stored); {
	case !ok || was == e.world():
		k.customer = stored
	case was.Before(e.world()):
		return book{}, false, nil // an id that another world has, which counts
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
		return k, false, err
	}
	for _, id := range ids {
		s, ok, err := state.Get[contracts.Subscription](tx, contracts.KeySubscription(id))
		if err != nil {
			return k, false, err
		}
		if ok && identity.WorldOf(s.LiveMode == nil || *s.LiveMode, s.Account) == e.world() {
			k.subs[id] = s
		}
	}
	return k, true, nil
}

// save writes what an event changed: the one subscription, the customer, and the
// ends. Leads are looked at only when something changed that they depend on.
func save(tx *state.Tx, before contracts.Customer, k book, subscription string) error {
	if s, ok := k.subs[subscription]; ok {
		if err := tx.Put(contracts.KeySubscription(s.ID), s); err != nil {
			return err
		}
	}
	ends, none := k.churns()
	for _, c := range ends {
		if err := tx.Put(contracts.KeyChurn(c.SubscriptionID), c); err != nil {
			return err
		}
	}
	for _, id := range none { // it seemed to have run, and never did
		if err := tx.Delete(contracts.KeyChurn(id)); err != nil {
			return err
		}
	}
	c := k.customer
	if before.Status == c.Status && slices.Equal(before.Refs, c.Refs) && slices.Equal(before.Emails, c.Emails) && slices.Equal(before.Phones, c.Phones) {
		return tx.Put(contracts.KeyCustomer(c.ID), c)
	}
	return identity.SetCustomer(tx, c)
}
