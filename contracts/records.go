package contracts

import (
	"encoding/json"
	"time"
)

// The records of the crm bucket, one Go type each. Every time in them comes from an
// event, or is set once: nothing here says when a program last ran, so that
// handling an event again writes the same bytes, and the same bytes are not
// written. Records only ever gain fields.

// LeadStatus is where a lead stands; see Lead.Settle.
type LeadStatus string

// The statuses of a lead.
const (
	LeadNew       LeadStatus = "new"
	LeadContacted LeadStatus = "contacted"
	LeadClient    LeadStatus = "client"
	LeadOptedOut  LeadStatus = "opted_out"
	LeadChurned   LeadStatus = "churned"
)

// A Lead is a person who filled in a form. Key: lead.<leadgen_id>.
type Lead struct {
	ID         string     `json:"id"`
	CreatedAt  time.Time  `json:"created_at"` // when the form was sent, by Meta's clock
	Name       string     `json:"name"`
	FirstName  string     `json:"first_name"`
	Email      string     `json:"email"`
	Phone      string     `json:"phone"` // E.164, or as typed when PhoneIssue is set
	FormID     string     `json:"form_id"`
	PageID     string     `json:"page_id"`
	Status     LeadStatus `json:"status"`
	CustomerID string     `json:"customer_id"`
	OptedOutAt time.Time  `json:"opted_out_at,omitzero"`
	Answers    Answers    `json:"answers"` // every form field by its name, values as given

	CustomerStatus CustomerStatus  `json:"customer_status,omitempty"` // that of CustomerID, once it has become a client
	ContactedAt    time.Time       `json:"contacted_at,omitzero"`     // the first text that Twilio accepted
	PhoneIssue     string          `json:"phone_issue,omitempty"`     // why the number can't be texted: "missing", "unreadable", "not_mobile"
	Disclaimers    map[string]bool `json:"disclaimers,omitempty"`     // consent check boxes by key
	AdID           string          `json:"ad_id,omitempty"`
	CampaignID     string          `json:"campaign_id,omitempty"`
	Platform       string          `json:"platform,omitempty"`   // "fb" or "ig", as Meta says
	Pending        bool            `json:"pending,omitempty"`    // announced, and Meta has not shown its form yet
	Announced      uint64          `json:"announced,omitempty"`  // while pending: the sequence of its announcement
	Lookups        int             `json:"lookups,omitempty"`    // while pending: how often Meta refused this lead, and no others with it
	NoWelcome      string          `json:"no_welcome,omitempty"` // why no welcome was sent: "consent", the box that REQUIRE_CONSENT names was not ticked
}

// Settle computes Status from the facts beside it. An opt-out outweighs all, since
// the status is what people look at before they pick up the phone.
func (l *Lead) Settle() {
	switch {
	case !l.OptedOutAt.IsZero():
		l.Status = LeadOptedOut
	case l.CustomerStatus == CustomerChurned:
		l.Status = LeadChurned
	case l.CustomerStatus != "":
		l.Status = LeadClient
	case !l.ContactedAt.IsZero():
		l.Status = LeadContacted
	default:
		l.Status = LeadNew
	}
}

// IDs is a list that is "[]" in JSON where it is empty, never null.
type IDs []string

// MarshalJSON implements json.Marshaler.
func (l IDs) MarshalJSON() ([]byte, error) {
	if len(l) == 0 {
		return []byte("[]"), nil
	}
	return json.Marshal([]string(l))
}

// Answers are a form's fields by name, values as given; "{}" in JSON where there are
// none, never null.
type Answers map[string][]string

// MarshalJSON implements json.Marshaler.
func (a Answers) MarshalJSON() ([]byte, error) {
	if len(a) == 0 {
		return []byte("{}"), nil
	}
	return json.Marshal(map[string][]string(a))
}

// A Contact is everyone known under one phone number. Key: contact.<phone>. Every
// opt-out and every claim of a text writes it, so that the two can't cross.
type Contact struct {
	Phone      string    `json:"phone"`     // E.164
	Leads      IDs       `json:"leads"`     // leadgen ids, sorted
	Customers  IDs       `json:"customers"` // customer ids, sorted
	OptedOutAt time.Time `json:"opted_out_at,omitzero"`
	LastSMSAt  time.Time `json:"last_sms_at,omitzero"` // the last text's claim

	// OptedInAt is when an operator allowed texts again: opt-outs up to then no longer count.
	OptedInAt time.Time `json:"opted_in_at,omitzero"`
	// UnclearAt is the last text that may have meant an opt-out, and ClearedAt when a person
	// last decided what was meant: while the former is later no welcome leaves.
	UnclearAt time.Time `json:"unclear_at,omitzero"`
	ClearedAt time.Time `json:"cleared_at,omitzero"`
	// AskedAt is the last START, to which an opt-in is the answer.
	AskedAt time.Time `json:"asked_at,omitzero"`

	Welcomes []Welcome `json:"welcomes,omitempty"` // leads that were given a welcome text, sorted by time
}

// A Welcome says which lead's form made us queue a welcome text, and when it was sent.
type Welcome struct {
	LeadID string    `json:"lead_id"`
	At     time.Time `json:"at"`
}

// CustomerStatus is where a client stands: the worst of its subscriptions that
// still run, or churned when none does.
type CustomerStatus string

// The statuses of a customer.
const (
	CustomerClient    CustomerStatus = "client"
	CustomerPastDue   CustomerStatus = "past_due"
	CustomerSuspended CustomerStatus = "suspended"
	CustomerChurned   CustomerStatus = "churned"
)

// Access says whether services are on.
type Access string

// The three states of access.
const (
	AccessActive    Access = "active"
	AccessSuspended Access = "suspended"
	AccessStopped   Access = "stopped"
)

// A Customer is a Stripe customer. Key: customer.<cus_id>. Status and Access are
// functions of the subscriptions' records and of Since, never toggled.
type Customer struct {
	ID            string         `json:"id"`
	Email         string         `json:"email"`
	Phone         string         `json:"phone"` // E.164 where readable
	Name          string         `json:"name"`
	LeadID        string         `json:"lead_id"`
	Subscriptions IDs            `json:"subscriptions"` // subscription ids, sorted
	Status        CustomerStatus `json:"status"`
	Access        Access         `json:"access"`
	Since         time.Time      `json:"since,omitzero"` // the first sign that it paid, tries or has a subscription that runs; zero: not a client

	// LiveMode is false for a customer of Stripe's test mode, and absent for a real one.
	// Account is the connected account that it belongs to; empty: the own one.
	LiveMode *bool  `json:"livemode,omitempty"`
	Account  string `json:"account,omitempty"`

	// LeadRef is the first of Refs, for people and for the former release.
	LeadRef string `json:"lead_ref,omitempty"`
	// Refs are the lead ids that Stripe's events named, the one that counts first. A lead
	// may come after its name, or never: see package identity.
	Refs   []LeadRef         `json:"refs,omitempty"`
	Emails []string          `json:"emails,omitempty"` // every address seen, lower case, sorted
	Phones []string          `json:"phones,omitempty"` // every readable number seen, E.164, sorted
	Facts  map[string]Facted `json:"facts,omitempty"`  // "email", "phone", "name": which event each came from

	PaidAt    time.Time `json:"paid_at,omitzero"`    // the first event that shows a payment
	DeletedAt time.Time `json:"deleted_at,omitzero"` // when it was deleted at Stripe

	Invoices map[string]Invoice `json:"invoices,omitempty"` // those of no subscription, by invoice id
}

// Facted is where a merged value came from: the later one wins, in the same second the
// surer source, then the greater id.
type Facted struct {
	At    time.Time `json:"at"` // when the value was true at its source
	Rank  int       `json:"rank,omitempty"`
	Event string    `json:"event"`
}

// A LeadRef is a lead's id as an event of Stripe's named it.
type LeadRef struct {
	ID    string    `json:"id"`
	Kind  string    `json:"kind"` // "metadata", or "reference": client_reference_id, which is often a cart's or a user's number
	At    time.Time `json:"at"`
	Event string    `json:"event"`
}

// A Subscription is a Stripe subscription. Key: subscription.<sub_id>.
type Subscription struct {
	ID         string `json:"id"`
	CustomerID string `json:"customer_id"`
	Status     string `json:"status"` // Stripe's: active, trialing, past_due, canceled, …
	PriceID    string `json:"price_id"`
	ProductID  string `json:"product_id"`
	// Amount is what a period costs, quantity included, before discounts, in minor units.
	// null: not known, since it depends on use (metered or tiered prices), or since the
	// items have different intervals (see Items).
	Amount            *int64    `json:"amount"`
	Currency          string    `json:"currency"`
	Interval          string    `json:"interval"`                 // "month", "year", …; empty when the items differ
	IntervalCount     int       `json:"interval_count,omitempty"` // 3 with "month": every three months
	CancelAtPeriodEnd bool      `json:"cancel_at_period_end"`     // also when an end is set otherwise, see CancelAt
	CancelAt          time.Time `json:"cancel_at,omitzero"`       // when it will end
	CurrentPeriodEnd  time.Time `json:"current_period_end,omitzero"`
	AsOf              time.Time `json:"as_of,omitzero"` // created of the event whose snapshot this is; zero: only invoices seen yet
	CanceledAt        time.Time `json:"canceled_at,omitzero"`
	EndedAt           time.Time `json:"ended_at,omitzero"`
	FailedAttempts    int       `json:"failed_attempts"` // since the last success: see package billing
	NextAttemptAt     time.Time `json:"next_attempt_at,omitzero"`
	Access            Access    `json:"access"`

	LiveMode *bool  `json:"livemode,omitempty"` // as its customer's
	Account  string `json:"account,omitempty"`

	CancelReason string             `json:"cancel_reason,omitempty"`
	Items        []SubscriptionItem `json:"items,omitempty"`    // where there are several
	TrialAt      time.Time          `json:"trial_at,omitzero"`  // the first snapshot that says trialing
	RanAt        time.Time          `json:"ran_at,omitzero"`    // the first one that says that it runs or has run
	Invoices     map[string]Invoice `json:"invoices,omitempty"` // what is known of each, by invoice id
	// Snapshots are the candidates for the newest state: one, or several that one
	// second brought and that are told apart by what each says came before it.
	Snapshots []Snapshot `json:"snapshots,omitempty"`
	// Settled is the candidate that Stripe itself named, when asked.
	Settled *SubscriptionState `json:"settled,omitempty"`
}

// An Invoice is what the events of one invoice add up to.
type Invoice struct {
	Created       time.Time         `json:"created,omitzero"`
	First         bool              `json:"first,omitempty"`    // the one that a subscription begins with
	Attempts      int               `json:"attempts,omitempty"` // the highest seen of failed attempts
	NextAttemptAt time.Time         `json:"next_attempt_at,omitzero"`
	FailedAt      time.Time         `json:"failed_at,omitzero"` // created of the event that told of it
	Tries         map[int]time.Time `json:"tries,omitempty"`    // when each lower attempt failed, last
	Closed        string            `json:"closed,omitempty"`   // "paid", "void" or "uncollectible": outweighs every failure
}

// A SubscriptionItem is one price of a subscription that has several.
type SubscriptionItem struct {
	PriceID       string `json:"price_id"`
	ProductID     string `json:"product_id,omitempty"`
	Quantity      int64  `json:"quantity"`
	Amount        *int64 `json:"amount"` // as Subscription.Amount
	Interval      string `json:"interval,omitempty"`
	IntervalCount int    `json:"interval_count,omitempty"`
}

// StripeAccounts is what has been seen of Stripe as a whole. Key: index.stripe.
type StripeAccounts struct {
	Worlds    []string  `json:"worlds,omitempty"`    // see package identity; the one that counts first
	Customers []string  `json:"customers,omitempty"` // those that are not of the own account's live mode, sorted, 200 at most
	Resettle  []string  `json:"resettle,omitempty"`  // those whose links have to be computed again
	ForeignAt time.Time `json:"foreign_at,omitzero"` // the last event, to the hour, of another world than the first
	InvoiceAt time.Time `json:"invoice_at,omitzero"` // the first invoice of a subscription, until there is a snapshot
	Snapshots bool      `json:"snapshots,omitempty"` // a subscription's snapshot has come
}

// SMSKind is why a text is sent.
type SMSKind string

// The kinds of text.
const (
	SMSWelcome            SMSKind = "welcome"
	SMSPaymentFailed      SMSKind = "payment_failed"
	SMSOptOutConfirmation SMSKind = "optout_confirmation"
	SMSContact            SMSKind = "contact" // who it is that writes, to one who asks
)

// SMSStatus is how far a text has walked.
type SMSStatus string

// The statuses of a text: queued → sending → sent → delivered or undelivered; or
// suppressed, expired, failed.
const (
	SMSQueued      SMSStatus = "queued"
	SMSSending     SMSStatus = "sending"
	SMSSent        SMSStatus = "sent"
	SMSDelivered   SMSStatus = "delivered"
	SMSUndelivered SMSStatus = "undelivered"
	SMSFailed      SMSStatus = "failed"
	SMSSuppressed  SMSStatus = "suppressed"
	SMSExpired     SMSStatus = "expired"
)

// An SMS is one text, to be sent once. Key: sms.<kind>.<cause>.
type SMS struct {
	Kind      SMSKind   `json:"kind"`
	To        string    `json:"to"` // E.164
	Body      string    `json:"body"`
	Status    SMSStatus `json:"status"`
	SID       string    `json:"sid"`                 // Twilio's, once known
	Attempts  int       `json:"attempts"`            // calls to Twilio that began
	QueuedAt  time.Time `json:"queued_at"`           // when the cause happened
	ExpiresAt time.Time `json:"expires_at,omitzero"` // not sent from then on; zero: never expires
	SentAt    time.Time `json:"sent_at,omitzero"`
	Error     string    `json:"error"` // a short reason, perhaps with Twilio's code: "21211"

	Cause      string    `json:"cause"`                // the last part of the key
	LeadID     string    `json:"lead_id,omitempty"`    // whom it concerns
	Claim      string    `json:"claim,omitempty"`      // a random token of the sender that holds the lease
	ClaimedAt  time.Time `json:"claimed_at,omitzero"`  // the first claim: from here a search at Twilio begins
	LeaseUntil time.Time `json:"lease_until,omitzero"` // while sending: nobody else touches it before
	NotBefore  time.Time `json:"not_before,omitzero"`  // while queued: the next claim, after one that came to nothing
}

// An OptOut is what a number has said of texts; the last word decides, see package
// consent. Key: optout.<phone>.
type OptOut struct {
	Phone             string       `json:"phone"` // E.164
	OptedOutAt        time.Time    `json:"opted_out_at"`
	Keyword           string       `json:"keyword"`     // normalised: "STOP", "ARRET", …; "" from the provider
	MessageSID        string       `json:"message_sid"` // the first STOP's
	ConfirmedAt       time.Time    `json:"confirmed_at,omitzero"`
	ProviderBlockedAt time.Time    `json:"provider_blocked_at,omitzero"`
	Source            OptOutSource `json:"source"`

	// OptedInAt is when texts were allowed again. The number is out while OptedOutAt is later.
	OptedInAt time.Time `json:"opted_in_at,omitzero"`
	// History is every word of either kind, sorted by time.
	History []Word `json:"history,omitempty"`
}

// The two kinds of a Word.
const (
	WordOptOut = "opt_out"
	WordOptIn  = "opt_in"
)

// A Word is one opt-out or opt-in of a number.
type Word struct {
	At      time.Time    `json:"at"`
	Kind    string       `json:"kind"` // "opt_out" or "opt_in"
	Source  OptOutSource `json:"source"`
	Keyword string       `json:"keyword,omitempty"`
	Message string       `json:"message,omitempty"` // Twilio's SID of the text, where there was one
}

// OptOutSource is who told us of an opt-out.
type OptOutSource string

// The sources of an opt-out.
const (
	OptOutBySMS      OptOutSource = "sms"
	OptOutByProvider OptOutSource = "provider"
	OptOutByOperator OptOutSource = "operator"
)

// A Churn is a subscription that ended. Key: churn.<sub_id>.
type Churn struct {
	SubscriptionID string    `json:"subscription_id"`
	CustomerID     string    `json:"customer_id"`
	Email          string    `json:"email"`
	PriceID        string    `json:"price_id"`
	Amount         *int64    `json:"amount"` // as Subscription.Amount
	Currency       string    `json:"currency"`
	EndedAt        time.Time `json:"ended_at"`
	Reason         string    `json:"reason"` // Stripe's cancellation_details.reason, or ""
	LiveMode       *bool     `json:"livemode,omitempty"`
	Account        string    `json:"account,omitempty"`
}

// Severity is how soon a person should look at an incident.
type Severity string

// The severities.
const (
	SeverityInfo    Severity = "info"    // worth knowing, nothing stands still
	SeverityWarning Severity = "warning" // one event could not be processed
	SeverityError   Severity = "error"   // a whole consumer waits
)

// An Incident is something that a person has to look at. Key: incident.<id>. Package
// incident opens, counts and closes them.
type Incident struct {
	ID         string    `json:"id"` // the cause, e.g. "billing-42", or "leads-auth"
	At         time.Time `json:"at"` // when it first happened
	LastAt     time.Time `json:"last_at,omitzero"`
	Count      int       `json:"count"` // how often it happened
	Severity   Severity  `json:"severity"`
	Consumer   string    `json:"consumer"` // the durable
	Stream     string    `json:"stream"`
	Sequence   uint64    `json:"sequence"` // of the first message that met it
	Subject    string    `json:"subject"`
	Reason     string    `json:"reason"`               // one sentence
	Action     string    `json:"action"`               // the exact nats command to run
	ResolvedAt time.Time `json:"resolved_at,omitzero"` // when it was mended; zero: open

	// Seen are the messages that were counted, so that a replay counts none of them
	// again. Where many webhooks joined one incident, records of their own hold them
	// (see FailedBlock).
	Seen Ranges `json:"seen,omitempty"`
	// Left is how many webhooks there are whose failure stands, and First the first.
	Left  int    `json:"left,omitempty"`
	First uint64 `json:"first,omitempty"`
	// Members are what else it waits for: causes that joined it, subjects of records.
	Members []string `json:"members,omitempty"`
}

// FailedBlock says of 4,096 webhooks which have joined an incident, one bit each, and
// whose failure stands. Key: index.failed.<incident id>.<sequence / 4096>.
type FailedBlock struct {
	Seen []byte `json:"seen"`
	Open []byte `json:"open"`
}

// FailedBlockSize is how many webhooks a FailedBlock is about.
const FailedBlockSize = 4096

// BlockBit says whether a webhook is one of those that a FailedBlock's Seen or Open has.
func BlockBit(bits []byte, sequence uint64) bool {
	n := int(sequence % FailedBlockSize)
	return n/8 < len(bits) && bits[n/8]&(1<<(n%8)) != 0
}

// IncidentIndex lists the incidents that are open. Key: index.incidents.
type IncidentIndex struct {
	Open []OpenIncident `json:"open"` // sorted by id
}

// OpenIncident is an open incident as the index has it.
type OpenIncident struct {
	ID       string `json:"id"`
	Consumer string `json:"consumer"`
	Kind     string `json:"kind"`             // "message": of messages that failed; "gate": of a consumer that waits; "report": of anything else
	Reason   string `json:"reason"`           // an outcome's reason
	Joined   bool   `json:"joined,omitempty"` // of several causes
	// Of a single message that failed: the webhook's sequence, or the record's subject.
	Sequence uint64 `json:"sequence,omitempty"`
	Subject  string `json:"subject,omitempty"`
}

// An Index lists who is known under an e-mail address or a lead id. Keys:
// index.email.<hash>, index.lead.<leadgen_id>.
type Index struct {
	Leads     []string `json:"leads,omitempty"`     // sorted
	Customers []string `json:"customers,omitempty"` // sorted
}

// A TextIndex says which record a text of Twilio's belongs to. Key: index.text.<SID>.
type TextIndex struct {
	Key string `json:"key"` // sms.<kind>.<cause>
}

// A Snapshot is what one event said about a subscription, and how it is ordered.
type Snapshot struct {
	Event   string            `json:"event"` // the event id
	Created int64             `json:"created"`
	Rank    int               `json:"rank"` // 1 created, 2 updated, 3 deleted
	State   SubscriptionState `json:"state"`
	// Before is what an update says it was before: its previous_attributes over State.
	Before *SubscriptionState `json:"before,omitempty"`
}

// A SubscriptionState is the part of a subscription that Stripe tells whole each time.
type SubscriptionState struct {
	Status            string             `json:"status"`
	PriceID           string             `json:"price_id"`
	ProductID         string             `json:"product_id"`
	Amount            *int64             `json:"amount"`
	Currency          string             `json:"currency"`
	Interval          string             `json:"interval"`
	IntervalCount     int                `json:"interval_count,omitempty"`
	CancelAtPeriodEnd bool               `json:"cancel_at_period_end"`
	CancelAt          time.Time          `json:"cancel_at,omitzero"`
	CurrentPeriodEnd  time.Time          `json:"current_period_end,omitzero"`
	CanceledAt        time.Time          `json:"canceled_at,omitzero"`
	EndedAt           time.Time          `json:"ended_at,omitzero"`
	CancelReason      string             `json:"cancel_reason,omitempty"`
	Items             []SubscriptionItem `json:"items,omitempty"`
}
