package contractstest_test

import (
	"testing"

	"leadpipe/contracts/contractstest"
)

// failures is a test that only counts what it was told.
type failures struct {
	testing.TB
	n int
}

func (f *failures) Helper()               {}
func (f *failures) Error(...any)          { f.n++ }
func (f *failures) Errorf(string, ...any) { f.n++ }

func TestChoosesSchema(t *testing.T) {
	t.Parallel()
	const (
		index  = `{"leads": ["1"]}`
		event  = `{"id": "evt_1", "object": "event", "type": "charge.refunded", "created": 1, "data": {"object": {}}}`
		failed = `{"id": "evt_1", "object": "event", "type": "invoice.payment_failed", "created": 1, "data": {"object": {}}}`
		lead   = `{"leadgen_id": 1, "page_id": "2", "form_id": "3", "created_time": 4}`
		text   = `{"MessageSid": "SM00000000000000000000000000000001", "AccountSid": "AC00000000000000000000000000000001",
			"From": "+33639980102", "To": "36000", "Body": ""}`
		status = `{"MessageSid": "SM00000000000000000000000000000001", "AccountSid": "AC00000000000000000000000000000001",
			"MessageStatus": "sent", "sms": "welcome.1"}`
	)
	record, webhook, validate := contractstest.Record, contractstest.Webhook, contractstest.Validate
	for name, c := range map[string]struct {
		check func(testing.TB, string, []byte)
		at    string
		doc   string
		fails bool
	}{
		"a record by its key's first token":       {record, "index.email.0123", index, false},
		"a record of another kind":                {record, "lead.1", index, true},
		"a key without a kind":                    {record, "index", index, true},
		"a key of no kind":                        {record, "common.1", index, true},
		"any Stripe event":                        {webhook, "webhooks.stripe.charge.refunded", event, false},
		"a Stripe event under another's subject":  {webhook, "webhooks.stripe.charge.succeeded", event, true},
		"a Stripe event with a schema of its own": {webhook, "webhooks.stripe.invoice.payment_failed", failed, true},
		"a lead":                       {webhook, "webhooks.facebook.leadgen", lead, false},
		"a whole body for a lead":      {webhook, "webhooks.facebook.leadgen", `{"object": "page"}`, true},
		"a text":                       {webhook, "webhooks.twilio.inbound.33639980102", text, false},
		"an opt-out":                   {webhook, "webhooks.twilio.optout.33639980102", text, false},
		"a text under an SMS's id":     {webhook, "webhooks.twilio.status.SM1", text, true},
		"a status":                     {webhook, "webhooks.twilio.status.SM1", status, false},
		"a subject that nobody uses":   {webhook, "webhooks.facebook.other", lead, true},
		"a schema by its name":         {validate, "index", index, false},
		"a schema that does not exist": {validate, "indices", index, true},
		"bytes that are not JSON":      {validate, "index", `{"leads": [`, true},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			f := &failures{TB: t}
			if c.check(f, c.at, []byte(c.doc)); (f.n > 0) != c.fails {
				t.Errorf("%d failures reported; want some: %v", f.n, c.fails)
			}
		})
	}
}
