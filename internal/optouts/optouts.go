// Package optouts decides what a webhook of Twilio's changes: a text that we were sent,
// or the delivery status of one that we sent.
//
// An opt-out enters the number's record, its contact and all leads of it, and queues
// the one confirmation that a number ever gets, in one commit. A text that asks to be
// texted again never does more than tell a person of it. Any other text is for nobody
// here: it stays in the stream.
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

	"leadpipe/contracts"
	"leadpipe/internal/delivery"
	"leadpipe/internal/keyword"
	"leadpipe/internal/outcome"
	"leadpipe/internal/state"
	"leadpipe/internal/text"
)

// DefaultText is the confirmation unless the operator words another.
const DefaultText = "Vous êtes désabonné. Plus de SMS."

// Options are what the consumer needs; all are required.
type Options struct {
	Text   *text.Template // the confirmation; see ParseText
	MaxAge time.Duration  // a confirmation of an older opt-out is not sent
}

// An Optouts decides. It is safe for concurrent use.
type Optouts struct {
	body   string
	maxAge time.Duration
}

// ParseText reads the confirmation's template, which has no fields; empty means
// DefaultText. An error names SMS_OPTOUT_TEXT.
func ParseText(template string) (*text.Template, error) {
	if strings.TrimSpace(template) == "" {
		template = DefaultText
	}
	return text.Parse("SMS_OPTOUT_TEXT", template, struct{}{})
}

// New checks the options.
func New(o Options) (*Optouts, error) {
	if o.Text == nil || o.MaxAge <= 0 {
		return nil, errors.New("optouts: the text or the greatest age is missing")
	}
	body, err := o.Text.Render(struct{}{})
	if err != nil {
		return nil, fmt.Errorf("optouts: %w", err)
	}
	return &Optouts{body: body, maxAge: o.MaxAge}, nil
}

// An Event is a webhook of Twilio's as this package needs it.
type Event struct {
	msg  contracts.Message
	kind kind

	phone   string // E.164; of an opt-out or an opt-in
	keyword string
	sid     string

	key  string // of the text that a status is about
	news delivery.News
}

type kind int

const (
	nothing kind = iota
	optOut
	optIn
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
	from := ""
	switch {
	case strings.HasPrefix(m.Subject, contracts.PrefixTwilioOptOut):
		e.kind, from = optOut, strings.TrimPrefix(m.Subject, contracts.PrefixTwilioOptOut)
		e.keyword, _ = keyword.OptOut(f.Body)
		if e.keyword == "" {
			e.keyword = strings.ToUpper(f.OptOutType) // what Twilio understood
		}
	case strings.HasPrefix(m.Subject, contracts.PrefixTwilioInbound):
		if !keyword.OptIn(f.Body) && !strings.EqualFold(f.OptOutType, "START") {
			return e, nil
		}
		e.kind, from = optIn, strings.TrimPrefix(m.Subject, contracts.PrefixTwilioInbound)
	case strings.HasPrefix(m.Subject, contracts.PrefixTwilioStatus):
		return statusOf(e, f), nil
	default:
		return e, nil
	}
	if !digits.MatchString(from) {
		// A short code or a name can't be texted, so that nothing has to stop. That
		// something reads our texts and answers STOP is worth a look all the same.
		return Event{}, outcome.Permanentf(outcome.Unknown, "the sender of the text is not a phone number")
	}
	e.phone = "+" + from
	return e, nil
}

// statusOf reads a delivery status. One that is about no text of ours is nothing.
func statusOf(e Event, f fields) Event {
	kind, cause, _ := strings.Cut(f.SMS, ".")
	switch contracts.SMSKind(kind) {
	case contracts.SMSWelcome, contracts.SMSPaymentFailed, contracts.SMSOptOutConfirmation:
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
	e.news = delivery.News{SID: f.MessageSid, Status: f.MessageStatus, Code: code, At: e.msg.OccurredAt()}
	return e
}

// Decide enters a webhook.
func (o *Optouts) Decide(tx *state.Tx, e Event) error {
	switch e.kind {
	case optOut:
		return o.optOut(tx, e)
	case optIn:
		return optedIn(tx, e)
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
	contact, _, err := state.Get[contracts.Contact](tx, contracts.KeyContact(number))
	if err != nil || !delivery.Counts(contact, e.msg.OccurredAt()) {
		return err
	}
	err = delivery.OptOut(tx, contracts.OptOut{
		Phone: e.phone, OptedOutAt: e.msg.OccurredAt(), Keyword: e.keyword, MessageSID: e.sid, Source: contracts.OptOutBySMS,
	})
	if err != nil {
		return err
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

// optedIn tells a person that a number asks for texts again. The action is what that
// person would run to agree: it turns the contact's opt-out into an opt-in of the time
// of this text, and takes the opt-out's own record away.
func optedIn(tx *state.Tx, e Event) error {
	number, at := strings.TrimPrefix(e.phone, "+"), e.msg.OccurredAt()
	id := fmt.Sprintf("%s-%d", contracts.Optouts, e.msg.Sequence)
	if contracts.ValidID(e.sid) {
		id = contracts.Optouts + "-" + e.sid // the same after a restored stream
	}
	return tx.Put(contracts.KeyIncident(id), contracts.Incident{
		ID: id, At: at, Severity: contracts.SeverityInfo, Consumer: contracts.Optouts,
		Stream: e.msg.Stream, Sequence: e.msg.Sequence, Subject: e.msg.Subject,
		Reason: "a number asks to be texted again; nothing was changed, a person has to decide",
		Action: fmt.Sprintf(`nats kv get %[1]s %[2]s --raw | sed 's/"opted_out_at":"[^"]*"/"opted_in_at":"%[3]s"/' | nats kv put %[1]s %[2]s && nats kv del %[1]s %[4]s --force`,
			contracts.Bucket, contracts.KeyContact(number), at.Format(time.RFC3339Nano), contracts.KeyOptOut(number)),
	})
}
