package console

import (
	"encoding/json"
	"strconv"
	"strings"
	"time"

	"leadpipe/contracts"
)

// What a webhook names, and what a record is about, are told in the same words: the
// key of a record ("lead.1", "customer.cus_1"), "invoice.in_1", "phone.33612345678",
// "seq.42". A record was caused by a webhook that names it.
type ids map[string]bool

func (s ids) add(kind, id string) {
	if id != "" && len(id) <= 200 {
		s[kind+id] = true
	}
}

func (s ids) phone(number string) {
	if digits, ok := strings.CutPrefix(number, "+"); ok {
		s.add("phone.", digits)
	}
}

// A happening is a webhook as the page shows it.
type happening struct {
	ids                     ids
	durable                 string // who handles it
	provider, kind          string // "stripe", "invoice.payment_failed"
	text                    string // of a text message; or a status
	amount                  int64
	currency                string
	attempt                 int
	name, number, reference string
}

// readWebhook takes out of a webhook what it names and what is shown of it. What
// can't be read is shown by its subject alone.
func readWebhook(m contracts.Message) happening {
	h := happening{ids: ids{}}
	h.ids.add("seq.", strconv.FormatUint(m.Sequence, 10))
	parts := strings.SplitN(strings.TrimPrefix(m.Subject, "webhooks."), ".", 2)
	h.provider = parts[0]
	if len(parts) > 1 {
		h.kind = parts[1]
	}
	switch h.provider {
	case "stripe":
		h.durable = contracts.Billing
		readStripe(&h, m.Data)
	case "facebook":
		h.durable = contracts.Leads
		var v struct {
			Lead string `json:"leadgen_id"`
		}
		if json.Unmarshal(m.Data, &v) == nil {
			h.ids.add("lead.", v.Lead)
			h.reference = v.Lead
		}
	case "twilio":
		h.durable = contracts.Optouts
		readTwilio(&h, m)
	}
	return h
}

func readTwilio(h *happening, m contracts.Message) {
	kind, last, _ := strings.Cut(h.kind, ".")
	h.kind = kind
	var form map[string]string
	if json.Unmarshal(m.Data, &form) != nil {
		return
	}
	if kind == "status" {
		h.text = form["MessageStatus"]
		h.number = form["To"]
		h.ids.phone(h.number)
		h.ids.add("sms.", form["sms"])
		return
	}
	h.text, h.number = form["Body"], "+"+last
	h.ids.add("phone.", last)
}

// readStripe collects every id of a customer, subscription, invoice or checkout in an
// event, wherever a version of the API has it, and the lead ids that we look for.
func readStripe(h *happening, data []byte) {
	var e struct {
		Data struct {
			Object map[string]any `json:"object"`
		} `json:"data"`
	}
	if json.Unmarshal(data, &e) != nil {
		return
	}
	o := e.Data.Object
	walk(h.ids, "", o, 0)
	if o["object"] == "customer" {
		h.number, _ = o["phone"].(string)
	}
	h.currency, _ = o["currency"].(string)
	for _, field := range []string{"amount_due", "amount_total"} {
		if n, ok := o[field].(float64); ok && h.amount == 0 {
			h.amount = int64(n)
		}
	}
	if n, ok := o["attempt_count"].(float64); ok {
		h.attempt = int(n)
	}
	for _, field := range []string{"name", "customer_name"} {
		if s, ok := o[field].(string); ok && h.name == "" {
			h.name = s
		}
	}
	if d, ok := o["customer_details"].(map[string]any); ok && h.name == "" {
		h.name, _ = d["name"].(string)
	}
}

func walk(found ids, field string, v any, depth int) {
	if depth > 8 || len(found) > 100 {
		return
	}
	switch v := v.(type) {
	case map[string]any:
		for k, x := range v {
			walk(found, k, x, depth+1)
		}
	case []any:
		for _, x := range v {
			walk(found, field, x, depth+1)
		}
	case string:
		switch {
		case strings.HasPrefix(v, "cus_"), strings.HasPrefix(v, "cs_"):
			found.add("customer.", v)
		case strings.HasPrefix(v, "sub_"):
			found.add("subscription.", v)
		case strings.HasPrefix(v, "in_"):
			found.add("invoice.", v)
		case field == "lead_id", field == "leadgen_id", field == "client_reference_id":
			found.add("lead.", v)
		}
	}
}

// A change is a record's new revision as the page shows it.
type change struct {
	key, kind    string // "sms.welcome.1", "sms.welcome"
	own, others  ids    // what it is, and whom it mentions
	state        string // its status, in the record's own word
	name, number string
	sentAt       time.Time // of a text; zero: not sent
	sheet        bool      // has a row in the spreadsheet
	incident     *contracts.Incident
}

// shows are the fields of all records that are looked at.
type shows struct {
	Name, Phone, To, Status, Access, Keyword, Severity string
	LeadID                                             string    `json:"lead_id"`
	CustomerID                                         string    `json:"customer_id"`
	SentAt                                             time.Time `json:"sent_at"`
	Leads, Customers, Subscriptions                    []string
	Pending                                            bool
	Sequence                                           uint64
	Stream                                             string
}

// readChange takes out of a record what it is about. Indexes are nothing to show.
func readChange(m contracts.Message) (change, bool) {
	key := contracts.KeyOfSubject(m.Subject)
	kind, rest, _ := strings.Cut(key, ".")
	c := change{key: key, kind: kind, own: ids{}, others: ids{}}
	var r shows
	if len(m.Data) > 0 && json.Unmarshal(m.Data, &r) != nil {
		return c, false
	}
	switch kind {
	case "lead", "customer":
		c.own.add(kind+".", rest)
		c.state, c.name = r.Status, r.Name
		if kind == "customer" && r.Access != "" && r.Access != "active" {
			c.state += ", " + r.Access
		}
		if r.Pending {
			c.state = "pending"
		}
	case "subscription":
		c.own.add("subscription.", rest)
		c.state = r.Status
	case "churn":
		c.own.add("subscription.", rest)
		c.state = "ended"
	case "contact", "optout":
		c.own.add("phone.", rest)
		c.state = r.Keyword
	case "sms":
		c.own.add("sms.", rest)
		which, cause, _ := strings.Cut(rest, ".")
		c.kind += "." + which
		switch which {
		case "welcome":
			c.own.add("lead.", cause)
		case "payment_failed":
			invoice, _, _ := strings.Cut(cause, ".")
			c.own.add("invoice.", invoice)
		default:
			c.own.add("phone.", cause)
		}
		c.state, c.sentAt = r.Status, r.SentAt
	case "incident":
		c.state = r.Severity
		if r.Stream == contracts.StreamWebhooks {
			c.own.add("seq.", strconv.FormatUint(r.Sequence, 10))
		}
		var i contracts.Incident
		if len(m.Data) > 0 && json.Unmarshal(m.Data, &i) == nil {
			c.incident = &i
		}
	default:
		return c, false
	}
	c.number = r.Phone
	if c.number == "" {
		c.number = r.To
	}
	c.sheet = kind != "contact" && kind != "sms"
	if kind != "sms" && kind != "incident" {
		c.others.add("lead.", r.LeadID)
		c.others.add("customer.", r.CustomerID)
		c.others.phone(c.number)
		for _, id := range r.Leads {
			c.others.add("lead.", id)
		}
		for _, id := range r.Customers {
			c.others.add("customer.", id)
		}
		for _, id := range r.Subscriptions {
			c.others.add("subscription.", id)
		}
	}
	return c, true
}
