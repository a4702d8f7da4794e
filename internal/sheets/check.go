package sheets

import (
	"context"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"errors"
	"fmt"
	"net/http"
	"os"

	"google.golang.org/api/googleapi"
	api "google.golang.org/api/sheets/v4"

	"leadpipe/internal/outcome"
)

// A Look is what a spreadsheet is, as far as it can be seen without changing it.
type Look struct {
	Title    string
	TimeZone string
	// Editable: a write of no cell at all was taken. Unsure: Google did not take such a
	// write for one, so whether there is the right is not known.
	Editable, Unsure bool
}

// LookAt asks Google for a spreadsheet and whether it may be edited. Its errors are
// outcomes, as of classify.
func LookAt(ctx context.Context, opt Options) (Look, error) {
	svc, err := service(ctx, opt)
	if err != nil {
		return Look{}, outcome.Permanent(outcome.Malformed, err)
	}
	c := newClient(svc, opt)
	var l Look
	err = c.call(ctx, c.reads, "spreadsheets.get", func(ctx context.Context) error {
		r, err := svc.Spreadsheets.Get(opt.SpreadsheetID).Fields("properties(title,timeZone)").Context(ctx).Do()
		if err == nil && r.Properties != nil {
			l.Title, l.TimeZone = r.Properties.Title, r.Properties.TimeZone
		}
		return err
	})
	if err != nil {
		return l, err
	}
	_, err = svc.Spreadsheets.Values.BatchUpdate(opt.SpreadsheetID, &api.BatchUpdateValuesRequest{ValueInputOption: "RAW"}).Context(ctx).Do()
	var said *googleapi.Error
	switch {
	case err == nil:
		l.Editable = true
	case errors.As(err, &said) && said.Code == http.StatusForbidden:
	case errors.As(err, &said) && said.Code == http.StatusBadRequest:
		l.Unsure = true
	default:
		return l, classify("values.batchUpdate", err, c.now())
	}
	return l, nil
}

// CheckCredentials says whether a file is a service account's key. Its errors say nothing
// of what is in it.
func CheckCredentials(file string) error {
	text, err := os.ReadFile(file)
	if err != nil {
		return fmt.Errorf("the service account's file: %w", errors.Unwrap(err))
	}
	var account struct {
		Type  string `json:"type"`
		Email string `json:"client_email"`
		Key   string `json:"private_key"`
	}
	switch {
	case json.Unmarshal(text, &account) != nil:
		return errors.New("the file is not JSON, as Google's console makes it")
	case account.Type != "service_account":
		return errors.New("the file is not that of a service account")
	}
	block, _ := pem.Decode([]byte(account.Key))
	if block == nil || account.Email == "" {
		return errors.New("the service account's file lacks its key or its address")
	}
	if _, err := x509.ParsePKCS8PrivateKey(block.Bytes); err != nil {
		if _, err := x509.ParsePKCS1PrivateKey(block.Bytes); err != nil {
			return errors.New("the key in the service account's file is not readable")
		}
	}
	return nil
}
