package billing

import (
	"fmt"
	"math"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/incident"
	"leadpipe/internal/outcome"
	"leadpipe/internal/phone"
	"leadpipe/internal/state"
)

// beforeTheForm is how long after its first invoice was made a customer is taken to sit
// before the form, where it sees that the payment failed. A SEPA debit comes back days
// later.
// https://docs.stripe.com/billing/subscriptions/overview#payment-window
const beforeTheForm = time.Hour

// text queues the text that tells of a failed payment. There is none for the first
// payment of a subscription while the customer is sitting before the form; nor to
// a number that takes no texts or has opted out. A text that can't be rendered is an
// incident and nothing else: the state that caused it stands.
func (b *Billing) text(tx *state.Tx, customer string, e Event) error {
	f := e.invoice
	if f.first && e.at.Sub(f.created) < beforeTheForm {
		return nil
	}
	c, _, err := state.Get[contracts.Customer](tx, contracts.KeyCustomer(customer)) // with its lead
	if err != nil {
		return err
	}
	to, err := b.recipient(tx, c)
	if err != nil || to == "" {
		return err
	}
	cause := fmt.Sprintf("%s.%d", f.id, f.attempts)
	key := contracts.KeySMS(contracts.SMSPaymentFailed, cause)
	if err := tx.Need(key, contracts.KeyContact(to.Digits()), contracts.KeyOptOut(to.Digits())); err != nil {
		return err
	}
	out, err := consent.Out(tx, to.Digits())
	if err != nil || out {
		return err
	}
	_, queued, err := state.Get[contracts.SMS](tx, key)
	if err != nil || queued { // the records were wiped, this one was kept
		return err
	}
	body, err := b.opt.PaymentFailed.Render(PaymentFailed{
		Name: c.Name, Amount: amount(f.amount, f.currency), URL: f.url, Attempt: f.attempts, NextAttemptAt: f.next,
		Company: b.opt.Company})
	if err != nil {
		return incident.Raise(tx, incident.Report{
			ID: templateIncident, Consumer: contracts.Billing, Reason: outcome.Malformed, Severity: contracts.SeverityWarning,
			At: e.at, Message: e.message, Text: "no text was sent about a failed payment: " + err.Error() + "; change the template and start again",
		})
	}
	if err := incident.Resolve(tx, templateIncident, e.at); err != nil {
		return err
	}
	return tx.Put(key, contracts.SMS{
		Kind: contracts.SMSPaymentFailed, To: string(to), Body: body, Status: contracts.SMSQueued,
		QueuedAt: e.at, ExpiresAt: e.at.Add(b.opt.SMSMaxAge), Cause: cause, LeadID: c.LeadID,
	})
}

// templateIncident is the incident of texts that can't be rendered; the next one that
// can closes it.
const templateIncident = "billing-template"

// recipient is the number that a customer's texts go to: its own, else its lead's; ""
// if neither takes texts. A number that the customer had at Stripe and has no more is
// not asked, whoever else knows it.
func (b *Billing) recipient(tx *state.Tx, c contracts.Customer) (phone.Number, error) {
	to, err := phone.Textable(c.Phone, b.opt.Region)
	if err == nil {
		return to, nil
	}
	if c.LeadID == "" {
		return "", nil
	}
	lead, _, err := state.Get[contracts.Lead](tx, contracts.KeyLead(c.LeadID))
	if err != nil {
		return "", err
	}
	if lead.PhoneIssue != "" || !phone.Number(lead.Phone).Mobile() || slices.Contains(c.Phones, lead.Phone) {
		return "", nil
	}
	return phone.Number(lead.Phone), nil
}

// suppress takes back texts on an invoice that are not on their way yet.
func suppress(tx *state.Tx, invoice string, attempts int) error {
	keys := keysOfTexts(invoice, attempts)
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

// keysOfTexts are those of the texts about an invoice's first failed attempts.
func keysOfTexts(invoice string, attempts int) []string {
	var keys []string
	for n := range attempts {
		keys = append(keys, contracts.KeySMS(contracts.SMSPaymentFailed, fmt.Sprintf("%s.%d", invoice, n+1)))
	}
	return keys
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
