package contracts

import "embed"

// Examples holds one webhook of each kind as its provider sends it, by file name,
// e.g. "stripe_payment_failed.json". Together they tell one person's story: the
// form, the checkout, a plan change whose payment fails, the end, and a STOP. Stripe's
// and Meta's are whole request bodies; sms_inbound.example.json is an object of the
// form fields that Twilio posts. Opening a name that is not there gives fs.ErrNotExist.
//
//go:embed *.json
var Examples embed.FS

// Schemas holds the JSON Schemas (draft 2020-12) of the webhooks and of the records,
// e.g. "schemas/lead.schema.json". They refer to each other by file name; package
// contractstest compiles them. Opening a name that is not there gives fs.ErrNotExist.
//
//go:embed schemas/*.schema.json
var Schemas embed.FS
