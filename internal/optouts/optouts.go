// Package optouts decides what a webhook of Twilio's changes: a text that we were sent,
// or the delivery status of one that we sent.
//
// An opt-out enters the number's record, its contact and all leads of it, and queues
// the one confirmation that a number ever gets, in one commit. A text that may mean one,
// or that asks to be texted again, is put before a person. Who asks who it is that
// writes is told, once a day. Any other text is counted, and stays in the stream.
package optouts

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strconv"
	"strings"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"leadpipe/contracts"
	"leadpipe/internal/consent"
	"leadpipe/internal/delivery"
	"leadpipe/internal/keyword"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
	"leadpipe/internal/text"
)

// DefaultText is the confirmation unless the operator words another.
const DefaultText = "Vous êtes désabonné. Plus de SMS."

// Options are what the consumer needs. Text and MaxAge are required.
type Options struct {
	Text    *text.Template        // the confirmation; see ParseText
	Contact *text.Template        // the answer to CONTACT, HELP, AIDE; see ParseContact; nil: none is given
	Company string                // who writes, {{.Company}}
	MaxAge  time.Duration         // an answer to an older text is not sent
	Metrics prometheus.Registerer // may be nil
}

// An Optouts decides. It is safe for concurrent use.
type Optouts struct {
	body    string
	contact string // empty: none
	maxAge  time.Duration
	inbound *prometheus.CounterVec
	told    *prometheus.CounterVec
}

// A Signature is what the answers may say: who writes.
type Signature struct {
	Company string // COMPANY_NAME; may be empty
}

// ParseText reads the confirmation's template, over a Signature; empty means
// DefaultText. An error names SMS_OPTOUT_TEXT.
func ParseText(template string) (*text.Template, error) {
	if strings.TrimSpace(template) == "" {
		template = DefaultText
	}
	return text.Parse("SMS_OPTOUT_TEXT", template, Signature{"Atelier Martin"})
}

// ParseContact reads the template of the answer to CONTACT, over a Signature; empty gives
// nil. French short codes must answer it. An error names SMS_CONTACT_TEXT.
// https://support.twilio.com/hc/en-us/articles/1260803521969
func ParseContact(template string) (*text.Template, error) {
	if strings.TrimSpace(template) == "" {
		return nil, nil
	}
	return text.Parse("SMS_CONTACT_TEXT", template, Signature{"Atelier Martin"})
}

// New checks the options.
func New(o Options) (*Optouts, error) {
	if o.Text == nil || o.MaxAge <= 0 {
		return nil, errors.New("optouts: the text or the greatest age is missing")
	}
	body, err := o.Text.Render(Signature{o.Company})
	if err != nil {
		return nil, fmt.Errorf("optouts: %w", err)
	}
	out := &Optouts{body: body, maxAge: o.MaxAge, inbound: prometheus.NewCounterVec(prometheus.CounterOpts{
		Name: "sms_inbound_total", Help: "Texts that came in, by what they were taken for."}, []string{"meaning"}),
		told: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "sms_statuses_total", Help: "What Twilio told of texts, by kind of text and status."}, []string{"kind", "status"})}
	if o.Contact != nil {
		if out.contact, err = o.Contact.Render(Signature{o.Company}); err != nil {
			return nil, fmt.Errorf("optouts: %w", err)
		}
	}
	for _, kind := range []contracts.SMSKind{contracts.SMSWelcome, contracts.SMSPaymentFailed, contracts.SMSOptOutConfirmation, contracts.SMSContact} {
		for _, status := range []string{"delivered", "undelivered", "failed"} { // from nothing, or Prometheus sees no increase
			out.told.WithLabelValues(string(kind), status)
		}
	}
	if o.Metrics != nil {
		o.Metrics.MustRegister(out.inbound, out.told)
	}
	return out, nil
}

// An Event is a webhook of Twilio's as this package needs it.
type Event struct {
	msg  contracts.Message
	kind kind

	phone   string // E.164; of a text
	keyword string
	sid     string
	blocked bool // Twilio itself has opted the number out

	key  string // of the text that a status is about
	news delivery.News
}

type kind int

const (
	nothing kind = iota
	optOut
	optIn
	unclear
	contact
	status
)

// fields are those of Twilio's form that matter here.
type fields struct {
	MessageSid    string
	Body          string
	OptOutType    string
	MessageStatus string
	ErrorCode     string
	SMS           string `json:"sms"`
}

var digits = regexp.MustCompile(`^[1-9][0-9]{6,14}$`)

// Prepare decodes a webhook. An error is permanent: what can't be read now never will be.
func (o *Optouts) Prepare(_ context.Context, m contracts.Message) (Event, error) {
	var f fields
	if err := json.Unmarshal(m.Data, &f); err != nil {
		return Event{}, outcome.Permanentf(outcome.Malformed, "the webhook is not a JSON object of texts")
	}
	e := Event{msg: m, sid: f.MessageSid}
	from, ordinary := "", false
	switch {
	case strings.HasPrefix(m.Subject, contracts.PrefixTwilioOptOut):
		e.kind, from = optOut, strings.TrimPrefix(m.Subject, contracts.PrefixTwilioOptOut)
		e.blocked = strings.EqualFold(f.OptOutType, "STOP")
		if _, e.keyword = keyword.Judge(f.Body); e.keyword == "" {
			e.keyword = strings.ToUpper(f.OptOutType) // what Twilio understood
		}
		o.inbound.WithLabelValues(string(keyword.OptOut)).Inc()
	case strings.HasPrefix(m.Subject, contracts.PrefixTwilioInbound):
		from = strings.TrimPrefix(m.Subject, contracts.PrefixTwilioInbound)
		e.kind, ordinary = o.meaning(f)
	case strings.HasPrefix(m.Subject, contracts.PrefixTwilioStatus):
		return o.statusOf(e, f), nil
	default:
		return e, nil
	}
	if ordinary {
		return Event{msg: m}, nil
	}
	if !digits.MatchString(from) {
		// A short code or a name can't be texted, so that nothing has to stop. That
		// something reads our texts and answers STOP is worth a look all the same.
		return Event{}, outcome.Permanentf(outcome.Unknown, "the sender of the text is not a phone number")
	}
	e.phone = "+" + from
	return e, nil
}

// meaning sorts a text that is published as no opt-out. ordinary: there is nothing to do.
func (o *Optouts) meaning(f fields) (k kind, ordinary bool) {
	m, _ := keyword.Judge(f.Body)
	if strings.EqualFold(f.OptOutType, "START") {
		m = keyword.OptIn
	}
	label := string(m)
	switch m {
	case keyword.OptIn:
		k = optIn
	case keyword.Unclear:
		k = unclear
	case keyword.OptOut: // the edge's release judged otherwise; a person decides
		k = unclear
	case keyword.Contact:
		k = contact
		// Where Twilio has understood HELP it has answered.
		ordinary = o.contact == "" || strings.EqualFold(f.OptOutType, "HELP")
	default:
		label, ordinary = "other", true
	}
	o.inbound.WithLabelValues(label).Inc()
	return k, ordinary
}

// statusOf reads a delivery status. One that is about no text of ours is nothing.
func (o *Optouts) statusOf(e Event, f fields) Event {
	kind, cause, _ := strings.Cut(f.SMS, ".")
	switch contracts.SMSKind(kind) {
	case contracts.SMSWelcome, contracts.SMSPaymentFailed, contracts.SMSOptOutConfirmation, contracts.SMSContact:
	default:
		return e
	}
	for part := range strings.SplitSeq(cause, ".") {
		if !contracts.ValidID(part) {
			return e
		}
	}
	code, err := strconv.Atoi(f.ErrorCode)
	if err != nil {
		code = 0 // most statuses have none
	}
	e.kind, e.key = status, contracts.KeySMS(contracts.SMSKind(kind), cause)
	o.told.WithLabelValues(kind, delivery.Word(f.MessageStatus)).Inc()
	e.news = delivery.News{SID: f.MessageSid, Status: f.MessageStatus, Code: code, At: e.msg.OccurredAt(), Message: e.msg}
	return e
}

// Decide enters a webhook.
func (o *Optouts) Decide(tx *state.Tx, e Event) error {
	switch e.kind {
	case optOut:
		return o.optOut(tx, e)
	case optIn:
		return consent.AskOptIn(tx, e.phone, e.msg)
	case unclear:
		return consent.AskUnclear(tx, e.phone, e.msg)
	case contact:
		return o.answer(tx, e)
	case status:
		return delivery.Record(tx, e.key, e.news)
	}
	return nil
}

func (o *Optouts) optOut(tx *state.Tx, e Event) error {
	number := strings.TrimPrefix(e.phone, "+")
	key := contracts.KeySMS(contracts.SMSOptOutConfirmation, number)
	if err := tx.Need(key, contracts.KeyOptOut(number), contracts.KeyContact(number)); err != nil {
		return err
	}
	word := contracts.Word{At: e.msg.OccurredAt(), Kind: contracts.WordOptOut, Source: contracts.OptOutBySMS, Keyword: e.keyword, Message: e.sid}
	if err := consent.Enter(tx, e.phone, word, e.blocked); err != nil {
		return err
	}
	if err := consent.CloseStart(tx, e.phone, e.msg.OccurredAt()); err != nil {
		return err
	}
	out, err := consent.Out(tx, number)
	if err != nil || !out {
		return err // an operator has allowed texts since
	}
	// Once ever: the record of the first one stays, however it ended.
	_, queued, err := state.Get[contracts.SMS](tx, key)
	if err != nil || queued {
		return err
	}
	return tx.Put(key, contracts.SMS{
		Kind: contracts.SMSOptOutConfirmation, To: e.phone, Body: o.body, Status: contracts.SMSQueued,
		QueuedAt: e.msg.OccurredAt(), ExpiresAt: e.msg.OccurredAt().Add(o.maxAge), Cause: number,
	})
}

// answerOnce is how long a number that has been told who writes is not told again.
const answerOnce = 24 * time.Hour

// answer queues the text that says who it is that writes, once a day, and never to a
// number that has opted out.
func (o *Optouts) answer(tx *state.Tx, e Event) error {
	number := strings.TrimPrefix(e.phone, "+")
	key := contracts.KeySMS(contracts.SMSContact, number)
	out, err := consent.Out(tx, number)
	if err != nil || out {
		return err
	}
	at := e.msg.OccurredAt()
	old, ok, err := state.Get[contracts.SMS](tx, key)
	if err != nil || ok && at.Sub(old.QueuedAt) < answerOnce {
		return err
	}
	return tx.Put(key, contracts.SMS{
		Kind: contracts.SMSContact, To: e.phone, Body: o.contact, Status: contracts.SMSQueued,
		QueuedAt: at, ExpiresAt: at.Add(o.maxAge), Cause: number,
	})
}
