package chaos

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"time"

	"leadpipe/contracts"
	"leadpipe/internal/sandbox/twilio"
)

// rang compares the texts that a person got with those that he or she expects, and with
// our records of them. It says whether the person was welcomed, as far as we can know.
func (c *checker) rang(p *person) (welcomed bool) {
	expected := p.texts()
	got := map[string][]twilio.Message{}
	for _, m := range c.texts[p.phone] {
		got[m.Body] = append(got[m.Body], m)
	}
	for words, list := range got {
		switch {
		case expected[words] == 0:
			c.add(wrong, p, "%s got a text that nobody owes: %q", p.phone, words)
		case len(list) > 1:
			c.add(twice, p, "%s got %q %d times", p.phone, words, len(list))
		}
	}
	for words, how := range expected {
		if how == certain && len(got[words]) == 0 {
			c.add(lost, p, "%s never got %q", p.phone, words)
		}
	}
	for key, r := range c.ours(p) {
		c.text(p, key, r)
		if r.Kind == contracts.SMSWelcome {
			welcomed = r.Status == contracts.SMSSent || r.Status == contracts.SMSDelivered
		}
	}
	for _, m := range c.texts[p.phone] {
		if !slices.ContainsFunc(c.known(p), func(sid string) bool { return sid == m.SID }) {
			c.add(wrong, p, "no record knows of the text %s: %q", m.SID, m.Body)
		}
	}
	return welcomed
}

// ours are the records of texts to a person.
func (c *checker) ours(p *person) map[string]contracts.SMS {
	out := map[string]contracts.SMS{}
	for key, data := range c.records {
		var r contracts.SMS
		if strings.HasPrefix(key, "sms.") && json.Unmarshal(data, &r) == nil && r.To == p.phone {
			out[key] = r
		}
	}
	return out
}

func (c *checker) known(p *person) (sids []string) {
	for _, r := range c.ours(p) {
		sids = append(sids, r.SID)
	}
	return sids
}

// text compares the record of a text with what Twilio has.
func (c *checker) text(p *person, key string, r contracts.SMS) {
	i := slices.IndexFunc(c.texts[p.phone], func(m twilio.Message) bool { return m.SID == r.SID && r.SID != "" })
	switch r.Status {
	case contracts.SMSSuppressed:
		if i >= 0 {
			c.add(wrong, p, "the record %s says %s, and Twilio has the text", key, r.Status)
		}
		return
	case contracts.SMSSent, contracts.SMSDelivered, contracts.SMSUndelivered:
	default:
		c.add(wrong, p, "the record %s is left %s (%s)", key, r.Status, r.Error)
		return
	}
	if i < 0 {
		c.add(wrong, p, "the record %s says %s as %q, of which Twilio does not know", key, r.Status, r.SID)
		return
	}
	// The best that Twilio has told us, and had an answer to.
	want := contracts.SMSSent
	for _, final := range []contracts.SMSStatus{contracts.SMSDelivered, contracts.SMSUndelivered} {
		if c.stored[contracts.MessageIDStatus(r.SID, string(final))] > 0 {
			want = final
		}
	}
	// What Twilio's list said of a text that was looked up counts too.
	if r.Status != want && (want != contracts.SMSSent || string(r.Status) != c.texts[p.phone][i].Status) {
		c.add(wrong, p, "the record %s says %s, Twilio told us %s", key, r.Status, want)
	}
}

// heard says whether we know that a text of those words did not arrive.
func (c *checker) heard(p *person, words string) bool {
	for _, r := range c.ours(p) {
		if r.Body == words && r.Status == contracts.SMSUndelivered {
			return true
		}
	}
	return false
}

// story is everything about a person that one needs to see what went wrong.
func (c *checker) story(p *person) []string {
	var out []string
	for _, d := range p.deliveries {
		line := fmt.Sprintf("webhook %6.2fs %s %s", d.at.Seconds(), d.what, strings.Join(d.ids, " "))
		if at, ok := c.ledger.ack(d); ok {
			line += ", acknowledged at " + at.Format(time.StampMilli)
		}
		out = append(out, line)
	}
	for _, key := range []string{contracts.KeyLead(p.lead), contracts.KeyContact(p.digits()), contracts.KeyCustomer(p.customer),
		contracts.KeySubscription(p.subscription), contracts.KeyChurn(p.subscription), contracts.KeyOptOut(p.digits())} {
		if data, ok := c.records[key]; ok {
			out = append(out, fmt.Sprintf("record  %s %s", key, data))
		}
	}
	for key, r := range c.ours(p) {
		out = append(out, fmt.Sprintf("record  %s %s %s, %d attempts, %q", key, r.Status, r.SID, r.Attempts, r.Body))
	}
	for _, call := range c.w.twilio.Calls() {
		if call.To == p.phone {
			out = append(out, fmt.Sprintf("call    at %s: %q, answered %d, fault %q, made %q", call.Began.Format(time.StampMilli), call.Body, call.Status, call.Fault, call.SID))
		}
	}
	return out
}
