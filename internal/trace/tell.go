package trace

import (
	"encoding/json"
	"fmt"
	"strings"
	"time"

	"leadpipe/contracts"
)

// An event is what is told of an event of Stripe's.
type event struct {
	ID   string `json:"id"`
	Data struct {
		Object struct {
			ID           string `json:"id"`
			Status       string `json:"status"`
			AttemptCount int    `json:"attempt_count"`
			AmountDue    *int64 `json:"amount_due"`
			AmountTotal  *int64 `json:"amount_total"`
			Currency     string `json:"currency"`
		} `json:"object"`
	} `json:"data"`
}

func eventOf(data []byte) event {
	var e event
	_ = json.Unmarshal(data, &e) // what can't be read is told without its details
	return e
}

// stripeIDs are the ids of customers, subscriptions, checkouts and invoices in an
// event, wherever a version of the API has them.
func stripeIDs(data []byte) map[string]bool {
	found := map[string]bool{}
	var walk func(v any)
	walk = func(v any) {
		switch v := v.(type) {
		case map[string]any:
			for _, x := range v {
				walk(x)
			}
		case []any:
			for _, x := range v {
				walk(x)
			}
		case string:
			for _, prefix := range []string{"cus_", "cs_", "sub_", "in_"} {
				if strings.HasPrefix(v, prefix) && contracts.ValidID(v) {
					found[v] = true
				}
			}
		}
	}
	var e struct {
		Data struct {
			Object any `json:"object"`
		} `json:"data"`
	}
	if json.Unmarshal(data, &e) == nil {
		walk(e.Data.Object)
	}
	return found
}

// tell makes steps of what was found.
func (f *finder) tell(incidents []contracts.Message) []Step {
	var steps []Step
	for _, m := range f.webhooks {
		steps = append(steps, webhook(m))
	}
	for key, m := range f.records {
		switch kind, _, _ := strings.Cut(key, "."); kind {
		case "index":
		case "sms":
			steps = append(steps, text(key, m)...)
		default:
			steps = append(steps, record(key, m))
		}
	}
	for _, m := range incidents {
		steps = append(steps, incident(m)...)
	}
	return steps
}

func webhook(m contracts.Message) Step {
	s := Step{At: m.OccurredAt(), Kind: StepWebhook, Stream: m.Stream, Sequence: m.Sequence, Subject: m.Subject}
	parts := strings.SplitN(strings.TrimPrefix(m.Subject, "webhooks."), ".", 3)
	switch {
	case strings.HasPrefix(m.Subject, contracts.PrefixStripe):
		e := eventOf(m.Data)
		s.Title = "Stripe " + strings.TrimPrefix(m.Subject, contracts.PrefixStripe)
		s.Detail = words(e.ID, e.Data.Object.ID, e.Data.Object.Status, money(e), attempt(e))
	case parts[0] == "facebook":
		var v struct {
			Lead string `json:"leadgen_id"`
			Form string `json:"form_id"`
		}
		_ = json.Unmarshal(m.Data, &v) // the ids may be numbers, and the message's own id says which lead
		s.Title, s.Detail = "Meta leadgen", words(strings.TrimPrefix(m.ID, "facebook:"), labelled("form", v.Form))
	case len(parts) > 1 && parts[0] == "twilio":
		var form map[string]string
		_ = json.Unmarshal(m.Data, &form)
		switch parts[1] {
		case "status":
			s.Title = "Twilio says " + form["MessageStatus"]
			s.Detail = words(form["MessageSid"], labelled("error", form["ErrorCode"]))
		case "optout":
			s.Title, s.Detail = "STOP received", words(quoted(form["Body"]), form["MessageSid"])
		default:
			s.Title, s.Detail = "text received", words(quoted(form["Body"]), form["MessageSid"])
		}
	default:
		s.Title = m.Subject
	}
	return s
}

func money(e event) string {
	o := e.Data.Object
	for _, n := range []*int64{o.AmountDue, o.AmountTotal} {
		if n != nil {
			return fmt.Sprintf("%d %s", *n, o.Currency)
		}
	}
	return ""
}

func attempt(e event) string {
	if n := e.Data.Object.AttemptCount; n > 0 {
		return fmt.Sprintf("attempt %d", n)
	}
	return ""
}

// record tells how a record stands. The bucket keeps its last revision, so the time is
// that of its last change.
func record(key string, m contracts.Message) Step {
	s := Step{At: m.Time, Kind: StepRecord, Stream: m.Stream, Sequence: m.Sequence, Key: key, Title: key}
	kind, _, _ := strings.Cut(key, ".")
	switch kind {
	case "lead":
		var l contracts.Lead
		_ = json.Unmarshal(m.Data, &l)
		s.Detail = words(string(l.Status), l.Name, l.Phone, l.Email, labelled("customer", l.CustomerID), pending(l.Pending), labelled("phone", l.PhoneIssue), labelled("no welcome:", l.NoWelcome))
	case "contact":
		var c contracts.Contact
		_ = json.Unmarshal(m.Data, &c)
		s.Detail = words(fmt.Sprintf("%d leads", len(c.Leads)), fmt.Sprintf("%d customers", len(c.Customers)), since("opted out", c.OptedOutAt), since("opted in", c.OptedInAt))
	case "customer":
		var c contracts.Customer
		_ = json.Unmarshal(m.Data, &c)
		s.Detail = words(string(c.Status), labelled("access", string(c.Access)), c.Name, c.Phone, c.Email, labelled("lead", c.LeadID))
	case "subscription":
		var x contracts.Subscription
		_ = json.Unmarshal(m.Data, &x)
		failed := ""
		if x.FailedAttempts > 0 {
			failed = fmt.Sprintf("%d failed attempts", x.FailedAttempts)
		}
		s.Detail = words(x.Status, labelled("access", string(x.Access)), failed, labelled("of", x.CustomerID))
	case "churn":
		var c contracts.Churn
		_ = json.Unmarshal(m.Data, &c)
		s.Detail = words(since("ended", c.EndedAt), c.Reason)
	case "optout":
		var o contracts.OptOut
		_ = json.Unmarshal(m.Data, &o)
		s.Detail = words(since("opted out", o.OptedOutAt), o.Keyword, labelled("by", string(o.Source)), since("confirmed", o.ConfirmedAt),
			since("blocked at Twilio", o.ProviderBlockedAt), since("opted in", o.OptedInAt))
	}
	return s
}

// text tells a text's way: queued, sent, and how it stands.
func text(key string, m contracts.Message) []Step {
	var s contracts.SMS
	if json.Unmarshal(m.Data, &s) != nil {
		return []Step{{At: m.Time, Kind: StepText, Title: key + " is not readable", Stream: m.Stream, Sequence: m.Sequence, Key: key}}
	}
	step := Step{Kind: StepText, Stream: m.Stream, Sequence: m.Sequence, Key: key}
	var steps []Step
	add := func(at time.Time, what, detail string) {
		step.At, step.Title, step.Detail = at, string(s.Kind)+" text "+what, detail
		steps = append(steps, step)
	}
	add(s.QueuedAt, "queued", words(labelled("to", s.To), quoted(s.Body)))
	if !s.SentAt.IsZero() {
		sent := s.SentAt // Twilio's, in whole seconds: not before the call began
		if s.ClaimedAt.After(sent) {
			sent = s.ClaimedAt
		}
		add(sent, "sent", s.SID)
	}
	switch s.Status {
	case contracts.SMSQueued, contracts.SMSSent: // told above
	default:
		add(m.Time, string(s.Status), s.Error)
	}
	return steps
}

func incident(m contracts.Message) []Step {
	var i contracts.Incident
	_ = json.Unmarshal(m.Data, &i) // it was read before
	s := Step{At: i.At, Kind: StepIncident, Title: "incident " + i.ID, Stream: m.Stream, Sequence: m.Sequence, Key: contracts.KeyOfSubject(m.Subject)}
	times := ""
	if i.Count > 1 {
		times = fmt.Sprintf("%d times", i.Count)
	}
	s.Detail = words(string(i.Severity), times, i.Reason)
	steps := []Step{s}
	if i.ResolvedAt.IsZero() {
		steps[0].Detail = words(s.Detail, labelled("to do:", i.Action))
		return steps
	}
	s.At, s.Title, s.Detail = i.ResolvedAt, "incident "+i.ID+" closed", ""
	return append(steps, s)
}

// words joins those that are there.
func words(all ...string) string {
	var out []string
	for _, w := range all {
		if w != "" {
			out = append(out, w)
		}
	}
	return strings.Join(out, ", ")
}

func labelled(label, value string) string {
	if value == "" {
		return ""
	}
	return label + " " + value
}

func quoted(s string) string {
	if s == "" {
		return ""
	}
	return "“" + strings.Join(strings.Fields(s), " ") + "”"
}

func pending(p bool) string {
	if p {
		return "Meta has not shown its form yet"
	}
	return ""
}

func since(what string, at time.Time) string {
	if at.IsZero() {
		return ""
	}
	return what + " " + at.UTC().Format(time.RFC3339)
}
