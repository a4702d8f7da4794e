package twilio

import (
	"crypto/tls"
	"crypto/x509"
)

// Trust has the client trust a test server's certificate.
func (c *Client) Trust(cert *x509.Certificate) {
	roots := x509.NewCertPool()
	roots.AddCert(cert)
	c.pool.TLSClientConfig = &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12}
}
