package trace

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/nats-io/nats.go/jetstream"

	"leadpipe/contracts"
	"leadpipe/internal/bus"
	"leadpipe/internal/phone"
)

// A finder collects what belongs to an id.
type finder struct {
	ctx context.Context
	js  jetstream.JetStream
	o   Options

	records map[string]contracts.Message // by key
	asked   map[string]bool              // keys that were read, there or not
	queue   []string                     // keys to read
	leaves  map[string]bool              // keys from which nothing is followed

	// What the webhooks are looked through for.
	needles  map[string]bool // ids in a body of Stripe's
	ids      map[string]bool // ids of messages
	subjects map[string]bool // whole subjects
	sids     map[string]bool // texts whose statuses are looked for
	webhooks map[uint64]contracts.Message
	read     uint64
}

// find collects the records and the webhooks.
func (f *finder) find(id string, kind Kind) error {
	switch kind {
	case Phone:
		f.number(phone.Number(id).Digits())
		f.follow(contracts.KeyContact(phone.Number(id).Digits()))
	case Email:
		f.follow(contracts.KeyEmailIndex(id))
	case Lead:
		f.lead(id)
	case Customer:
		f.needles[id] = true
		f.follow(contracts.KeyCustomer(id))
	case Subscription:
		f.needles[id] = true
		f.follow(contracts.KeySubscription(id), contracts.KeyChurn(id))
	case Invoice:
		f.needles[id] = true
		if err := f.scan(); err != nil {
			return err
		}
		f.named(id)
	case Event:
		f.ids[contracts.MessageIDStripe(id)] = true
		if err := f.scan(); err != nil {
			return err
		}
		f.named("")
	case Text:
		return f.text(id)
	}
	if err := f.followAll(); err != nil {
		return err
	}
	if kind == Invoice || kind == Event {
		f.needles, f.ids = map[string]bool{}, map[string]bool{} // these were read
	}
	return f.scan()
}

// text finds one of our texts by its index and follows it to its cause; any other is one
// that came in.
func (f *finder) text(sid string) error {
	f.follow(contracts.KeyTextIndex(sid))
	if err := f.followAll(); err != nil {
		return err
	}
	for key, m := range f.records {
		var s contracts.SMS
		if strings.HasPrefix(key, "sms.") && json.Unmarshal(m.Data, &s) == nil {
			f.cause(s)
			if err := f.followAll(); err != nil {
				return err
			}
			return f.scan()
		}
	}
	f.sids[sid] = true
	f.ids[contracts.MessageIDTwilio(sid)] = true
	f.subjects[contracts.PrefixTwilioInbound+"*"], f.subjects[contracts.PrefixTwilioOptOut+"*"] = true, true
	if err := f.scan(); err != nil {
		return err
	}
	f.said()
	return f.followAll()
}

// follow reads records, and what they lead to. leaf reads them alone.
func (f *finder) follow(keys ...string) { f.queue = append(f.queue, keys...) }

func (f *finder) leaf(key string) {
	f.leaves[key] = true
	f.follow(key)
}

// followAll reads what is to be read until nothing new comes up.
func (f *finder) followAll() error {
	for len(f.queue) > 0 {
		keys := f.queue
		f.queue = nil
		found, err := f.fetched(keys)
		if err != nil {
			return err
		}
		for _, m := range found {
			if key := contracts.KeyOfSubject(m.Subject); !f.leaves[key] {
				f.relate(key, m.Data)
			}
		}
	}
	return nil
}

// fetched reads keys that were not read yet.
func (f *finder) fetched(keys []string) ([]contracts.Message, error) {
	var missing []string
	for _, k := range keys {
		if k != "" && !f.asked[k] {
			f.asked[k] = true
			missing = append(missing, k)
		}
	}
	if len(missing) == 0 {
		return nil, nil
	}
	found, err := bus.Read(f.ctx, f.js, missing)
	if err != nil {
		return nil, err
	}
	found = slices.DeleteFunc(found, func(m contracts.Message) bool { return len(m.Data) == 0 })
	for _, m := range found {
		f.records[contracts.KeyOfSubject(m.Subject)] = m
	}
	return found, nil
}

// relate follows what a record names. A record that can't be read leads nowhere, and is
// told all the same.
func (f *finder) relate(key string, data []byte) {
	kind, id, _ := strings.Cut(key, ".")
	switch kind {
	case "lead":
		var l contracts.Lead
		_ = json.Unmarshal(data, &l)
		f.lead(id)
		f.person(l.Phone)
		f.customer(l.CustomerID)
	case "contact":
		var c contracts.Contact
		_ = json.Unmarshal(data, &c)
		f.everybody(c.Leads, c.Customers)
	case "index":
		switch {
		case strings.HasPrefix(id, "text."):
			var t contracts.TextIndex
			_ = json.Unmarshal(data, &t)
			f.follow(t.Key)
		default:
			var x contracts.Index
			_ = json.Unmarshal(data, &x)
			f.everybody(x.Leads, x.Customers)
		}
	case "customer":
		var c contracts.Customer
		_ = json.Unmarshal(data, &c)
		f.needles[id] = true
		for _, s := range c.Subscriptions {
			f.follow(contracts.KeySubscription(s), contracts.KeyChurn(s))
		}
		if c.LeadID != "" {
			f.lead(c.LeadID)
		}
		f.person(c.Phone)
		f.invoices(c.Invoices)
	case "subscription":
		var s contracts.Subscription
		_ = json.Unmarshal(data, &s)
		f.needles[id] = true
		if key := contracts.KeyCustomer(s.CustomerID); s.CustomerID != "" && !f.asked[key] {
			f.leaf(key) // its other subscriptions are none of this one's story
		}
		f.invoices(s.Invoices)
	case "sms":
		var s contracts.SMS
		_ = json.Unmarshal(data, &s)
		if s.SID != "" {
			f.sids[s.SID] = true
		}
	}
}

// cause follows a text to what it came from.
func (f *finder) cause(s contracts.SMS) {
	switch s.Kind {
	case contracts.SMSWelcome:
		f.ids[contracts.MessageIDFacebook(s.Cause)] = true
		f.leaf(contracts.KeyLead(s.Cause))
	case contracts.SMSPaymentFailed:
		invoice, _, _ := strings.Cut(s.Cause, ".")
		f.needles[invoice] = true
	case contracts.SMSOptOutConfirmation, contracts.SMSContact:
		f.number(s.Cause)
	}
}

func (f *finder) everybody(leads, customers []string) {
	for _, id := range leads {
		f.lead(id)
	}
	for _, id := range customers {
		f.customer(id)
	}
}

func (f *finder) lead(id string) {
	f.ids[contracts.MessageIDFacebook(id)] = true
	f.follow(contracts.KeyLead(id), contracts.KeyLeadIndex(id), contracts.KeySMS(contracts.SMSWelcome, id))
}

func (f *finder) customer(id string) {
	if id != "" {
		f.follow(contracts.KeyCustomer(id))
	}
}

// person follows a number to what it said and was told, not to all who share it.
func (f *finder) person(number string) {
	if d, ok := strings.CutPrefix(number, "+"); ok && contracts.ValidID(d) {
		f.number(d)
	}
}

func (f *finder) number(digits string) {
	f.follow(contracts.KeyOptOut(digits), contracts.KeySMS(contracts.SMSOptOutConfirmation, digits), contracts.KeySMS(contracts.SMSContact, digits))
	f.subjects[contracts.SubjectInbound(digits)], f.subjects[contracts.SubjectOptOut(digits)] = true, true
}

func (f *finder) invoices(all map[string]contracts.Invoice) {
	for id, i := range all {
		f.needles[id] = true
		f.attempts(id, i.Attempts)
	}
}

// mostAttempts bounds the texts that are looked for; Stripe tries an invoice eight times.
const mostAttempts = 30

// attempts follows an invoice to the texts about its failed attempts.
func (f *finder) attempts(invoice string, n int) {
	for try := range min(n, mostAttempts) + 1 {
		f.follow(contracts.KeySMS(contracts.SMSPaymentFailed, invoice+"."+strconv.Itoa(try)))
	}
}

// named follows the ids in the webhooks of Stripe's that were found, and no further. An
// invoice that was asked for leads to the texts about all its attempts.
func (f *finder) named(invoice string) {
	if invoice != "" {
		f.attempts(invoice, 10)
	}
	for _, m := range f.webhooks {
		for id := range stripeIDs(m.Data) {
			switch {
			case strings.HasPrefix(id, "cus_"), strings.HasPrefix(id, "cs_"):
				f.leaf(contracts.KeyCustomer(id))
			case strings.HasPrefix(id, "sub_"):
				f.leaf(contracts.KeySubscription(id))
				f.leaf(contracts.KeyChurn(id))
			case strings.HasPrefix(id, "in_") && invoice == "":
				f.attempts(id, eventOf(m.Data).Data.Object.AttemptCount)
			}
		}
	}
}

// said follows a text that came in to the number that sent it.
func (f *finder) said() {
	for _, m := range f.webhooks {
		for _, prefix := range []string{contracts.PrefixTwilioInbound, contracts.PrefixTwilioOptOut} {
			if d, ok := strings.CutPrefix(m.Subject, prefix); ok {
				f.leaf(contracts.KeyOptOut(d))
				f.leaf(contracts.KeySMS(contracts.SMSOptOutConfirmation, d))
				f.leaf(contracts.KeySMS(contracts.SMSContact, d))
			}
		}
	}
}

// mostFilters bounds the subjects of one reading; beyond it all statuses are read.
const mostFilters = 200

// scan reads the webhooks among which those that are looked for are.
func (f *finder) scan() error {
	filters := map[string]bool{}
	maps.Copy(filters, f.subjects)
	stripe := len(f.needles) > 0
	for id := range f.ids {
		stripe = stripe || strings.HasPrefix(id, "stripe:")
		if strings.HasPrefix(id, "facebook:") {
			filters[contracts.SubjectFacebookLeadgen] = true
		}
	}
	if stripe {
		filters[contracts.PrefixStripe+">"] = true
	}
	if len(f.sids) > mostFilters {
		filters[contracts.PrefixTwilioStatus+"*"] = true
	} else {
		for id := range f.sids {
			filters[contracts.SubjectStatus(id)] = true
		}
	}
	if len(filters) > 2*mostFilters {
		return fmt.Errorf("%d subjects to look through: ask for one lead or customer", len(filters))
	}
	if len(filters) == 0 {
		return nil
	}
	needles := make([][]byte, 0, len(f.needles))
	for n := range f.needles {
		needles = append(needles, []byte(strconv.Quote(n)))
	}
	told := time.Now()
	var read uint64
	err := bus.Messages(f.ctx, f.js, bus.Range{Stream: contracts.StreamWebhooks, Subjects: slices.Sorted(maps.Keys(filters))},
		func(m contracts.Message, left uint64) error {
			f.read++
			if read++; f.o.Progress != nil && time.Since(told) > 200*time.Millisecond {
				told = time.Now()
				f.o.Progress(read, read+left)
			}
			if f.wanted(m, needles) {
				f.webhooks[m.Sequence] = m
			}
			return nil
		})
	if err != nil {
		return fmt.Errorf("looking through the webhooks: %w", err)
	}
	return nil
}

func (f *finder) wanted(m contracts.Message, needles [][]byte) bool {
	if sid, ok := strings.CutPrefix(m.Subject, contracts.PrefixTwilioStatus); ok {
		return f.sids[sid]
	}
	if f.ids[m.ID] || f.subjects[m.Subject] {
		return true
	}
	return strings.HasPrefix(m.Subject, contracts.PrefixStripe) &&
		slices.ContainsFunc(needles, func(n []byte) bool { return bytes.Contains(m.Data, n) })
}

// incidents reads those that are about what was found: by their number, by the key of a
// record, or as one of many that joined.
func (f *finder) incidents() ([]contracts.Message, error) {
	var about []contracts.Message
	type part struct {
		of        contracts.Message // the incident
		sequences []uint64          // webhooks of the block that were found
	}
	blocks := map[string]part{} // by the key of the block to look at
	err := bus.Messages(f.ctx, f.js, bus.Range{Stream: contracts.StreamCRM, Subjects: []string{contracts.SubjectOfKey(contracts.KeyIncident(">"))}},
		func(m contracts.Message, _ uint64) error {
			var i contracts.Incident
			if json.Unmarshal(m.Data, &i) != nil {
				return nil // deleted, or nobody's
			}
			if f.concerned(i) {
				about = append(about, m)
				return nil
			}
			if i.Stream == contracts.StreamWebhooks && strings.Contains(i.ID, "-many") {
				for seq := range f.webhooks {
					key := contracts.KeyFailed(i.ID, seq)
					blocks[key] = part{m, append(blocks[key].sequences, seq)}
				}
			}
			return nil
		})
	if err != nil || len(blocks) == 0 {
		return about, err
	}
	found, err := bus.Read(f.ctx, f.js, slices.Sorted(maps.Keys(blocks)))
	if err != nil {
		return nil, err
	}
	joined := map[string]bool{}
	for _, m := range found {
		p := blocks[contracts.KeyOfSubject(m.Subject)]
		var b contracts.FailedBlock
		if json.Unmarshal(m.Data, &b) != nil || joined[p.of.Subject] {
			continue
		}
		if slices.ContainsFunc(p.sequences, func(seq uint64) bool { return contracts.BlockBit(b.Seen, seq) }) {
			joined[p.of.Subject] = true
			about = append(about, p.of)
		}
	}
	return about, nil
}

func (f *finder) concerned(i contracts.Incident) bool {
	if i.Stream == contracts.StreamWebhooks {
		for seq := range f.webhooks {
			if seq == i.Sequence || i.Seen.Has(seq) {
				return true
			}
		}
		return false
	}
	_, ours := f.records[contracts.KeyOfSubject(i.Subject)]
	return ours || slices.ContainsFunc(i.Members, func(m string) bool {
		_, ours := f.records[contracts.KeyOfSubject(m)]
		return ours
	})
}
